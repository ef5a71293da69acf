"""Stores that systems of examples/ keep their data in, and a Prometheus that scrapes lictors: processes of their own, each on a folder that is empty at first."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import urllib.parse

from stack import INHERITED, ROOT, Process, ask, eventually, folder, free_port


def run_by(user, directory):
    """What a command begins with to be run by a store's own user, who gets the folder: none of them may be root's. Nothing where we are not root."""
    if os.geteuid() != 0:
        return []
    shutil.chown(directory, user, user)
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]  # it becomes its program: one process, unlike runuser


def said(command, **variables):
    """What a command prints."""
    done = subprocess.run(list(map(str, command)), env=INHERITED | variables, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.strip()


class Postgres(Process):
    """With these databases, of a user who shows a password if there is one."""

    # Debian has a folder for each version; others have it on PATH.
    PROGRAMS = max(pathlib.Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: int(path.parent.name), default=pathlib.Path())

    def __init__(self, port, user, *databases, password=""):
        self.port, self.user, self.databases, self.password = port, user, databases, password
        self.data = folder("postgres")
        self.run_by = run_by("postgres", self.data)
        secret = self.data.with_suffix(".password")
        secret.write_text(password)
        shown = ["-A", "scram-sha-256", f"--pwfile={secret}"] if password else ["-A", "trust"]
        said([*self.run_by, self.PROGRAMS / "initdb", "-D", self.data, *shown, "-U", user, "-E", "UTF8", "--locale=C", "--no-sync"])
        self.start_again()
        for database in databases:
            self.ask(f"create database {database}", "template1")

    def start_again(self):
        """With what it has."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "shared_buffers": "16MB"}
        command = [*self.run_by, self.PROGRAMS / "postgres", "-D", self.data, "-p", self.port, *(f"-c{key}={value}" for key, value in options.items())]
        super().__init__("postgres", command, directory="/")
        eventually("Postgres answers", lambda: self.ask("select 1", "template1") == "1", 30)

    def end(self, how=signal.SIGINT):
        """At once; SIGTERM waits for its clients."""
        return super().end(how)

    def _psql(self, database):
        return [self.PROGRAMS / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, "-d", database or self.databases[0], "-qAtX", "-v", "ON_ERROR_STOP=1"]

    def ask(self, sql, database=None):
        return said([*self._psql(database), "-c", sql], PGPASSWORD=self.password)

    @contextlib.contextmanager
    def locked(self, table, database=None):
        """Whoever reads this table waits."""
        with subprocess.Popen(self._psql(database), env=INHERITED | {"PGPASSWORD": self.password}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
            try:
                psql.stdin.write(f"begin; lock table {table}; select 'locked';\n")
                psql.stdin.flush()
                assert psql.stdout.readline() == "locked\n"
                yield
            finally:
                psql.stdin.close()  # it ends, and rolls back


class MariaDB(Process):
    """With a user who may do all."""

    def __init__(self, port, user, password):
        self.port, self.data = port, folder("mariadb")
        self.run_by = run_by("mysql", self.data)
        said([*self.run_by, "mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal", "--skip-test-db"])
        self.start_again()
        self.ask(f"create user {user}@'%' identified by '{password}'; grant all on *.* to {user}@'%'")

    def start_again(self):
        """With what it has."""
        super().__init__("mariadb", [
            *self.run_by, shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self.data}", f"--port={self.port}",
            f"--socket={self.data}/socket", f"--pid-file={self.data}/pid", "--bind-address=127.0.0.1", "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2",
        ])
        eventually("MariaDB answers", lambda: self.ask("select 1"), 30)

    def ask(self, sql):
        return said(["mariadb", "--no-defaults", f"--socket={self.data}/socket", "--user=root", "-N", "-e", sql])


class RabbitMq(Process):
    """A broker with a user. It is up some seconds later."""

    def __init__(self, port, user, password):
        self.port, self.data, names = port, folder("rabbitmq"), free_port()
        (self.data / "rabbit.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users = none\ndefault_user = {user}\ndefault_pass = {password}\n"
        )
        (self.data / "plugins").write_text("[].\n")
        self.run_by = run_by("rabbitmq", self.data)
        self.environment = {
            "HOME": self.data, "RABBITMQ_NODENAME": "examples@localhost", "RABBITMQ_CONFIG_FILE": self.data / "rabbit.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.data / "plugins", "RABBITMQ_MNESIA_BASE": self.data / "mnesia", "RABBITMQ_LOG_BASE": self.data / "log",
            "RABBITMQ_DIST_PORT": free_port(), "ERL_EPMD_PORT": names, "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",  # it waits without turning round and round
        }
        self.names = Process("epmd", [*self.run_by, "epmd", "-port", names, "-address", "127.0.0.1"], self.environment)  # else it would be left behind
        self.start_again()

    def start_again(self):
        """With what it has."""
        super().__init__("rabbitmq", [*self.run_by, "/usr/lib/rabbitmq/bin/rabbitmq-server"], self.environment)

    def is_up(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"AMQP\0\0\x09\x01")
            return connection.recv(1) == b"\x01"

    def end(self, how=signal.SIGKILL):
        try:
            return super().end(how)
        finally:
            self.names.kill()


class Prometheus(Process):
    """With deploy/prometheus' rules and further ones, in seconds where they have minutes; `targets` are ports by job."""

    def __init__(self, port, rules, targets):
        self.port, directory = port, folder("prometheus")
        for number, file in enumerate([ROOT / "deploy/prometheus/rules.yml", *rules]):
            text = re.sub(r"\[\d+m\]", "[10s]", file.read_text())
            (directory / f"rules-{number}.yml").write_text(re.sub(r"for: \d+[mh]", "for: 2s", text))
        jobs = "".join(
            f"  - job_name: {job}\n    static_configs: [{{targets: {[f'127.0.0.1:{one}' for one in ports]}}}]\n" for job, ports in targets.items()
        )
        head = "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules-*.yml]\nscrape_configs:\n"
        (directory / "prometheus.yml").write_text(head + jobs)
        super().__init__("prometheus", [
            "prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}",
        ])
        eventually("Prometheus answers", lambda: ask(port, "GET", "/-/ready").status == 200, 20)

    def value(self, query):
        """What a query for one number gives; None where there is none yet."""
        found = ask(self.port, "GET", "/api/v1/query?query=" + urllib.parse.quote(query)).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self):
        """The labels of each alert that fires."""
        alerts = ask(self.port, "GET", "/api/v1/alerts").json()["data"]["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def known(self):
        """The names of alerts that fire, or soon will."""
        return {alert["labels"]["alertname"] for alert in ask(self.port, "GET", "/api/v1/alerts").json()["data"]["alerts"]}
