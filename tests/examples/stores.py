"""Stores that systems of examples/ keep their data in: processes of their own, each on a folder that is empty at first."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

from stack import INHERITED, Process, eventually, folder


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
    def locked(self, table):
        """Whoever reads this table waits."""
        with subprocess.Popen(self._psql(None), env=INHERITED | {"PGPASSWORD": self.password}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
            try:
                psql.stdin.write(f"begin; lock table {table}; select 'locked';\n")
                psql.stdin.flush()
                assert psql.stdout.readline() == "locked\n"
                yield
            finally:
                psql.stdin.close()  # it ends, and rolls back
