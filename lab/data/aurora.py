"""One Region's databases: the keeper of a PostgreSQL server for each Aurora cluster, as the storage fleet and hosts are on AWS.

``python -m lab.data.aurora <region>`` creates the servers (writers in the first Region, streaming standbys elsewhere), keeps a heartbeat
in each writer, measures each standby's lag, and obeys the control plane (lab/aws/services/rds.py) and the faults over its control port:

    GET  /status                              per database: role, lag, what is wrong with it
    POST /<database>/stop {"how": "fast"|"crash"}   /start   /pause   /resume   /cut   /mend   /delay {"ms": 2000}
    POST /<database>/promote                  a standby becomes the writer
    POST /<database>/follow {"region": R}     becomes a standby of R: by pg_rewind, else by base backup
    POST /<database>/snapshot {"name": N}     /restore {"snapshot": N, "name": M} -> {"port": …}
    DELETE /<database>/snapshots/<name>       /restored/<name>

Who may write is written in ``<state>/aurora/<database>.writer``. A server that wakes up as a writer although the file names another
Region is not started (it is fenced) until the control plane has it follow: a crashed Region comes back without a second writer.

**Lag.** The writer notes the wall time every 0.2 s; a standby's lag is the age of what it sees of that. Within one beat the age says
nothing but the beat's phase, so that much counts as wall milliseconds; what is beyond it is an interruption, and lasts lab time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.admin import Refusal, serve
from lab.data.postgres import Installation, PostgresError, Server, template
from lab.data.schema import schemas
from lab.plan import DATABASES, LabPlan

if TYPE_CHECKING:
    import psycopg

BEAT_S = 0.2
COUNT_EVERY_S = 1.0
BEAT_SQL = (
    "SELECT pg_is_in_recovery(), written, (SELECT extract(epoch FROM last_msg_receipt_time)::float8 FROM pg_stat_wal_receiver),"
    " CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END FROM heartbeat"
)
COUNT_SQL = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL),"
    " (SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL AND state = 'active' AND pid <> pg_backend_pid()),"
    " (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),"
    " coalesce(pg_last_wal_receive_lsn() - '0/0', 0)::bigint"
)
DEAD_END = "host=127.0.0.1 port=1 user=postgres connect_timeout=1"


@dataclass(slots=True)
class Pulse:
    """What the heartbeat last measured. Times are wall seconds, epoch; None where there is nothing to say."""

    writer: bool = False
    beat_seen: float | None = None
    received: float | None = None
    replaying: bool = True
    connections: int = 0
    active: int = 0
    commits: int = 0
    received_bytes: int = 0
    write_s: float | None = None
    read_s: float | None = None
    error: str | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a standby is behind, in milliseconds: what it shows, and what it would lose."""

    replication_ms: float
    rpo_ms: float


def lag(pulse: Pulse, now: float, speed: float) -> Lag | None:
    """The lag of a standby at the wall time ``now``; None for a writer, and for a standby that never saw a beat."""
    if pulse.writer or not pulse.beat_seen:
        return None
    return Lag(_lag_ms(now - pulse.beat_seen, speed), _lag_ms(now - (pulse.received or pulse.beat_seen), speed))


def _lag_ms(age_s: float, speed: float) -> float:
    beyond = max(0.0, age_s - 2 * BEAT_S)
    return round(1000 * (max(0.0, min(age_s, 2 * BEAT_S)) + beyond * speed), 1)


class Database:
    """One cluster in one Region: its server, and the thread that feels its pulse."""

    def __init__(self, plan: LabPlan, region: str, name: str, installation: Installation) -> None:
        self.name = name
        self._plan = plan
        self._region = region
        self._installation = installation
        self.folder = plan.path / "aurora" / region
        self.server = Server(
            installation, self.folder / name, plan.regions[region].postgres_ports[name], name, plan.logs / f"{region}-postgres-{name}.log"
        )
        self.restored: dict[str, Server] = {}
        self.pulse = Pulse()
        self.fenced = False
        self.delay_ms = 0
        self.cut = False
        self.source = ""
        self._stopping = threading.Event()
        self._counted = 0.0

    def open(self) -> None:
        """Create the server's data at the first start, and start it unless it would be a second writer."""
        writer = read_writer(self._plan, self.name)
        if not self.server.data.exists():
            source = template(self._installation, self._plan.path / "aurora", schemas())
            self.server.create(source, None if writer == self._region else self._upstream(writer))
        self.source = "" if writer == self._region else writer
        self.fenced = writer != self._region and not self.server.is_standby
        if not self.fenced:
            self.server.start()
        threading.Thread(target=self._feel, name=f"pulse of {self.name}", daemon=True).start()

    def close(self) -> None:
        """Stop everything, orderly."""
        self._stopping.set()
        for server in (*self.restored.values(), self.server):
            server.stop(within_s=2.0)

    def _upstream(self, region: str) -> str:
        return f"host=127.0.0.1 port={self._way(region)} user=postgres connect_timeout=2 application_name={self._region}"

    def _way(self, region: str) -> int:
        """The port on which this Region reaches the database in ``region``: the link between the Regions is in between."""
        return self._plan.regions[self._region].peering_ports[f"{region}/{self.name}"]

    # --- what the control port asks for; each runs in the one thread that owns this database's processes ---

    def do_stop(self, how: str = "fast") -> None:
        """Stop the server, or crash it."""
        self.server.stop(signal.SIGKILL if how == "crash" else signal.SIGINT)

    def do_start(self) -> None:
        """Start a stopped server again, in the role that its data has; a fenced one only if the file names its Region again."""
        writer = read_writer(self._plan, self.name)
        if self.fenced and writer != self._region:
            raise Refusal(409, f"{self._region}/{self.name} is fenced: {writer} is the writer; have it follow")
        self.server.start()
        if self.fenced:
            self.fenced, self.source = False, ""

    def do_pause(self) -> None:
        """Stop replaying."""
        self._standby().pause()

    def do_resume(self) -> None:
        """Replay again."""
        self._standby().resume()

    def do_delay(self, ms: int) -> None:
        """Replay each commit late."""
        self._standby().delay(int(ms))
        self.delay_ms = int(ms)

    def do_cut(self) -> None:
        """Let replication, and nothing else, lead nowhere."""
        self._standby().relink(DEAD_END)
        self.cut = True

    def do_mend(self) -> None:
        """Undo `do_cut`."""
        self._standby().relink(self._upstream(self.source))
        self.cut = False

    def do_promote(self) -> None:
        """Make this the writer. Who else writes, and where the endpoint points, is the control plane's business."""
        self._standby().promote()
        self.fenced, self.cut, self.delay_ms, self.source = False, False, 0, ""

    def do_follow(self, region: str) -> dict[str, str]:
        """Make this a standby of ``region``."""
        if region == self._region or region not in self._plan.regions:
            raise Refusal(400, f"{self._region}/{self.name} cannot follow {region!r}: name another Region of the lab")
        how = self.server.follow(self._upstream(region), self._way(region))
        self.fenced, self.cut, self.delay_ms, self.source = False, False, 0, region
        return {"how": how}

    def do_snapshot(self, name: str) -> dict[str, Any]:
        """Copy the data, of a running server or of a stopped one."""
        path = self._snapshot(name)
        self.server.backup(path)
        return {"name": name, "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file())}

    def do_restore(self, snapshot: str, name: str) -> dict[str, int]:
        """Start a server of its own from a snapshot; it takes writes and follows nobody."""
        source = self._snapshot(snapshot)
        if not source.exists():
            raise Refusal(404, f"there is no snapshot {snapshot!r} of {self._region}/{self.name}")
        if name not in self.restored:
            server = Server(self._installation, self.folder / "restored" / f"{self.name}-{name}", _free_port(), self.name, self.server.log)
            server.create(source, None)
            server.start()
            self.restored[name] = server
        return {"port": self.restored[name].port}

    def drop_snapshots(self, name: str) -> None:
        """Remove a snapshot."""
        _remove(self._snapshot(name))

    def drop_restored(self, name: str) -> None:
        """Stop and remove a restored server."""
        if server := self.restored.pop(name, None):
            server.stop(within_s=2.0)
            _remove(server.data)

    def _snapshot(self, name: str) -> Path:
        return self.folder / "snapshots" / f"{self.name}-{name.replace('/', '_').replace(':', '_')}"

    def _standby(self) -> Server:
        if not self.server.running:
            raise Refusal(409, f"{self._region}/{self.name} does not run")
        if not self.server.is_standby:
            raise Refusal(409, f"{self._region}/{self.name} is a writer, not a standby")
        return self.server

    # --- the pulse ---

    def _feel(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._stopping.wait(BEAT_S):
            import psycopg

            try:
                if connection is None or connection.closed:
                    connection = self.server.connect()
                self._beat(connection)
                self.pulse.error = None
            except (OSError, psycopg.Error) as error:
                self.pulse.error = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                if connection is not None:
                    connection.close()
                    connection = None

    def _beat(self, connection: psycopg.Connection[Any]) -> None:
        pulse = self.pulse
        started = time.perf_counter()
        row = connection.execute(BEAT_SQL).fetchone()
        pulse.read_s = time.perf_counter() - started
        if row is None:
            return
        in_recovery, written, received, paused = row
        pulse.writer = not in_recovery
        pulse.at = time.time()
        pulse.replaying = not paused
        if in_recovery:
            pulse.beat_seen = written or None  # 0: no beat has arrived since the databases were made
            pulse.received = max(filter(None, (received, pulse.received, written)), default=None)
            pulse.write_s = None
        else:
            started = time.perf_counter()
            connection.execute("UPDATE heartbeat SET written = %s, region = %s", (time.time(), self._region))
            pulse.write_s = time.perf_counter() - started
            pulse.beat_seen = pulse.received = None
        if pulse.at - self._counted >= COUNT_EVERY_S:
            self._counted = pulse.at
            pulse.connections, pulse.active, pulse.commits, pulse.received_bytes = connection.execute(COUNT_SQL).fetchone() or (0, 0, 0, 0)

    def status(self) -> dict[str, Any]:
        """What `GET /status` says of this database."""
        now = time.time()
        fresh = self.server.running and now - self.pulse.at < 10 * BEAT_S
        role = "fenced" if self.fenced else "reader" if self.server.is_standby else "writer"
        behind = lag(self.pulse, now, self._plan.clock.speed) if self.server.running else None
        return {
            "role": role,
            "running": self.server.running,
            "answering": fresh,
            "source": self.source,
            "lag": asdict(behind) if behind else None,
            "paused": not self.pulse.replaying,
            "delay_ms": self.delay_ms,
            "cut": self.cut,
            "pid": self.server.process.pid if self.server.process else None,
            "port": self.server.port,
            **self.server.usage(),
            "restored": {name: server.port for name, server in self.restored.items()},
            "pulse": asdict(self.pulse),
        }


@dataclass(slots=True)
class Keeper:
    """All databases of one Region and the control port over them."""

    plan: LabPlan
    region: str
    databases: dict[str, Database] = field(default_factory=dict)
    threads: dict[str, ThreadPoolExecutor] = field(default_factory=dict)

    async def run(self) -> None:
        """Bring the databases up, serve until SIGTERM, take them down."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        (self.plan.path / "aurora" / self.region).mkdir(parents=True, exist_ok=True)
        for folder in (self.plan.path / "aurora", self.plan.path / "aurora" / self.region):
            folder.chmod(0o711)
        if os.geteuid() == 0:
            os.chown(self.plan.path / "aurora" / self.region, 65534, 65534)
        installation = Installation.find(self.plan.path / "aurora")
        for name in DATABASES:
            self.databases[name] = Database(self.plan, self.region, name, installation)
            self.threads[name] = ThreadPoolExecutor(1, thread_name_prefix=name)  # a server dies with the thread that started it
        await asyncio.gather(*(loop.run_in_executor(self.threads[name], database.open) for name, database in self.databases.items()))
        server = await serve(self.plan.regions[self.region].aurora_port, self.handle)
        await stop.wait()
        server.close()
        await asyncio.gather(*(loop.run_in_executor(self.threads[name], database.close) for name, database in self.databases.items()))

    async def handle(self, method: str, path: tuple[str, ...], _query: dict[str, str], body: Any) -> Any:
        """The control port's requests."""
        if (method, path) == ("GET", ("status",)):
            return {name: database.status() for name, database in self.databases.items()}
        import psycopg

        if not path or path[0] not in self.databases:
            raise Refusal(404, f"no such path: /{'/'.join(path)}; databases are {', '.join(self.databases)}")
        database = self.databases[path[0]]
        if method == "POST" and len(path) == 2:
            action = getattr(database, f"do_{path[1]}", None)
        elif method == "DELETE" and len(path) == 3:
            action = getattr(database, f"drop_{path[1]}", None)
            body = {"name": path[2]}
        else:
            action = None
        if action is None:
            raise Refusal(404, f"a database cannot {method} {'/'.join(path[1:])}")
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads[path[0]], lambda: action(**(body or {})))
        except TypeError as error:
            raise Refusal(400, f"{path[1]}: {error}") from error
        except (PostgresError, OSError, psycopg.Error) as error:
            raise Refusal(503, f"{self.region}/{path[0]} {path[1]}: {error}") from error


def writer_file(plan: LabPlan, database: str) -> Path:
    """The file that holds the name of the Region whose cluster is the writer."""
    return plan.path / "aurora" / f"{database}.writer"


def read_writer(plan: LabPlan, database: str) -> str:
    """The Region whose cluster is the writer; the first Region where nobody has said yet."""
    with contextlib.suppress(FileNotFoundError):
        if name := writer_file(plan, database).read_text().strip():
            return name
    return next(iter(plan.regions))


def set_writer(plan: LabPlan, database: str, region: str) -> None:
    """Point the global writer endpoint of ``database`` to ``region``."""
    file = writer_file(plan, database)
    partial = file.with_suffix(".partial")
    partial.write_text(region)
    partial.rename(file)


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


if __name__ == "__main__":
    asyncio.run(Keeper(LabPlan.load(), sys.argv[1]).run())
