"""A Postgres of a system's own, that believes whoever asks."""

import contextlib
import os
import pathlib
import signal
import subprocess

from stack import Process, eventually, folder

# Debian has a folder for each version; others have it on PATH.
PROGRAMS = max(pathlib.Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: int(path.parent.name), default=pathlib.Path())
# It runs as nobody who may do everything. (setpriv becomes its program: one process, unlike runuser.)
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


class Postgres(Process):
    def __init__(self, port, database):
        self.port, self.database, self.data = port, database, folder("postgres")
        if AS_POSTGRES:
            subprocess.run(["chown", "postgres", self.data], check=True)
        initdb = [*AS_POSTGRES, PROGRAMS / "initdb", "-D", self.data, "-A", "trust", "-U", database, "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/")
        self.start_again()
        self.ask(f"create database {database}", "template1")

    def start_again(self):
        """With what it has."""
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "shared_buffers": "16MB"}
        command = [*AS_POSTGRES, PROGRAMS / "postgres", "-D", self.data, "-p", self.port, *(f"-c{key}={value}" for key, value in options.items())]
        super().__init__("postgres", command, directory="/")
        eventually("Postgres answers", lambda: self.ask("select 1", "template1") == "1", 30)

    def end(self, how=signal.SIGINT):
        """At once; SIGTERM waits for its clients."""
        return super().end(how)

    def _psql(self, database):
        return [PROGRAMS / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.database, "-d", database or self.database, "-qAtX", "-v", "ON_ERROR_STOP=1"]

    def ask(self, sql, database=None):
        done = subprocess.run([*self._psql(database), "-c", sql], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextlib.contextmanager
    def locked(self, table):
        """Whoever reads this table waits."""
        with subprocess.Popen(self._psql(None), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
            try:
                psql.stdin.write(f"begin; lock table {table}; select 'locked';\n")
                psql.stdin.flush()
                assert psql.stdout.readline() == "locked\n"
                yield
            finally:
                psql.stdin.close()  # it ends, and rolls back
