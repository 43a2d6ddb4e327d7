"""crosswatch-spool: look into a spool, or deliver what ended processes left in it.

    crosswatch-spool inspect DIR [--json]
    crosswatch-spool drain DIR [--timeout SECONDS]

`drain` sends to where the environment says (the same variables as the service), re-signing with the credentials of now. Journals whose
process lives are left to it, and named. Exit codes: 0 done, 1 something is left, 2 the folder or the settings cannot be used.
"""

import argparse
import json
import os
import pwd
import sys
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from crosswatch_exporters.journal import records
from crosswatch_exporters.journal.spool import UnsafeSpool, is_journal, journals, lock, make_safe, metadata


@dataclass(frozen=True, slots=True)
class LaneReport:
    """What one lane of one journal holds. Times are ISO 8601, empty when nothing is held; `damaged` counts bytes that no sound record
    covers."""

    journal: str
    service: str
    region: str
    pid: int
    alive: bool
    signal: str
    items: int
    bytes: int
    oldest: str
    newest: str
    damaged: int


def inspect(folder: Path) -> Iterator[LaneReport]:
    """A report for each lane. Reads only."""
    for journal in journals(folder):
        said = metadata(journal)
        alive = _alive(journal)
        try:
            lanes = sorted(path for path in journal.iterdir() if path.is_dir())
        except FileNotFoundError:
            continue  # its process ended, with nothing left, while we looked
        for lane in lanes:
            yield _lane_report(journal, lane, said, alive)


def _lane_report(journal: Path, lane: Path, said: dict[str, object], alive: bool) -> LaneReport:
    number, offset = records.read_cursor(lane)
    items = size = damaged = 0
    oldest, newest = 1 << 63, 0
    for path in lane.glob(f"*{records.UNREADABLE}"):
        damaged += path.stat().st_size
    for path in sorted(lane.glob("*.seg")):
        if not path.stem.isdigit() or int(path.stem) < number:
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # delivered while we looked
        at = max(offset if int(path.stem) == number else 0, len(records.MAGIC))
        size += len(data)
        for stored in records.read_all(data, at):
            damaged += stored.end - at - records.HEAD_BYTES - len(stored.block.payload)
            at = stored.end
            items += stored.block.items
            oldest, newest = min(oldest, stored.block.oldest_ns), max(newest, stored.block.newest_ns)
        damaged += max(0, len(data) - at)
    return LaneReport(
        journal=journal.name,
        service=str(said.get("service", "")),
        region=str(said.get("region", "")),
        pid=int(str(said.get("pid", 0))),
        alive=alive,
        signal=lane.name,
        items=items,
        bytes=size,
        oldest=_iso(oldest) if items else "",
        newest=_iso(newest) if items else "",
        damaged=damaged,
    )


def drain(folder: Path, timeout: float) -> Set[str]:
    """Deliver what ended processes left, as far as that is possible in `timeout` seconds, and print what became of it. Returns the signals
    that there was an endpoint for."""
    from crosswatch_exporters.configurator import drain_pipeline
    from crosswatch_exporters.settings import read_settings

    settings = read_settings({**os.environ, "CROSSWATCH_SPOOL_DIR": str(folder.absolute())})
    for problem in settings.problems:
        print(problem, file=sys.stderr)
    pipeline = drain_pipeline(settings)
    if pipeline.recovery is None:
        raise UnsafeSpool(f"{folder} cannot be used as a spool")
    if not pipeline.senders:
        raise UnsafeSpool("no endpoint is set: set AWS_REGION or OTEL_EXPORTER_OTLP_ENDPOINT as for the service")
    pipeline.recovery.look()
    for sender in pipeline.senders.values():
        sender.start()
        sender.flush()
    by = time.monotonic() + timeout
    for sender in pipeline.senders.values():
        sender.idle.wait(max(0.0, by - time.monotonic()))
    pipeline.close(1.0)
    for signal, balance in pipeline.ledger.balances().items():
        print(f"{signal}: {balance}")
    return frozenset(pipeline.senders)


_NOT_SENT = {
    "traces": "set AWS_REGION or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "logs": "set OTEL_EXPORTER_OTLP_LOGS_ENDPOINT, or AWS_REGION and OTEL_EXPORTER_OTLP_LOGS_HEADERS=x-aws-log-group=<name>",
    "metrics": "set OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "classic_metrics": "set CROSSWATCH_CLASSIC_METRICS or CROSSWATCH_EMF_LOG_GROUP",
}


def left(folder: Path, tried: Set[str]) -> bool:
    """Name what ended processes' journals still hold; whether they hold anything. For the signals in `tried` there was an endpoint."""
    found = False
    for report in inspect(folder):
        if report.alive or not (report.items or report.damaged):
            continue
        found = True
        held = f"{report.items} items" if report.items else f"{report.damaged} bytes that cannot be read"
        mend = f"; no endpoint is set for them: {_NOT_SENT[report.signal]}" if report.signal in _NOT_SENT.keys() - tried else ""
        print(f"{report.journal} still holds {held} of {report.signal}{mend}", file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="crosswatch-spool", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("inspect", "show what a spool holds"), ("drain", "deliver what ended processes left")):
        command = commands.add_parser(name, help=text)
        command.add_argument("dir", type=Path, help="the spool folder, CROSSWATCH_SPOOL_DIR of the service")
        if name == "inspect":
            command.add_argument("--json", action="store_true", help="print JSON")
        else:
            command.add_argument("--timeout", type=float, default=60.0, help="seconds to try for (default 60)")
    chosen = parser.parse_args(arguments)
    try:
        check(chosen.dir)
        if chosen.command == "inspect":
            show(list(inspect(chosen.dir)), chosen.json)
            raise SystemExit(0)
        make_safe(chosen.dir)
        tried = drain(chosen.dir, chosen.timeout)
        waiting = [left(chosen.dir, tried), in_use(chosen.dir) > 0]
    except (UnsafeSpool, OSError) as error:
        print(f"crosswatch-spool: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    raise SystemExit(1 if any(waiting) else 0)


def check(folder: Path) -> None:
    """Raise UnsafeSpool, with the mend, when this is not a spool that we can read. An empty folder is one: everything was delivered."""
    try:
        if not folder.is_dir():
            raise UnsafeSpool(f"{folder} is not a folder; give the service's CROSSWATCH_SPOOL_DIR")
        readable = os.access(folder, os.R_OK | os.X_OK)
    except PermissionError:
        readable = False
    if not readable:
        raise UnsafeSpool(f"{folder} is another user's, we are {_user(os.geteuid())}; run this as the service's user")
    if is_journal(folder) or is_journal(folder.parent):
        spool = folder.parent if is_journal(folder) else folder.parent.parent
        raise UnsafeSpool(f"{folder} is a part of the spool {spool}; give that folder")
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if entries and not any(is_journal(path) for path in entries):
        below = sorted(path for path in entries if path.is_dir() and os.access(path, os.R_OK | os.X_OK) and journals(path))
        hint = f"; {', '.join(map(str, below))} is one" if below else "; give the service's CROSSWATCH_SPOOL_DIR"
        raise UnsafeSpool(f"{folder} is not a spool: it holds other files and no journal{hint}")


def in_use(folder: Path) -> int:
    """Name the journals whose processes live; the number of items that wait in them."""
    waiting = 0
    for journal, lanes in groupby((report for report in inspect(folder) if report.alive), key=lambda report: report.journal):
        reports = list(lanes)
        items = sum(report.items for report in reports)
        waiting += items
        owner = f"{reports[0].service or 'a process'}, pid {reports[0].pid}"
        print(f"{journal} is in use by {owner}, which delivers its {items} items itself; stop it to drain them", file=sys.stderr)
    return waiting


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def show(reports: Sequence[LaneReport], as_json: bool) -> None:
    """Print the reports."""
    if as_json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
        return
    for r in reports:
        state = "alive" if r.alive else "ended"
        span = f"{r.oldest} .. {r.newest}" if r.items else "-"
        damaged = f"  {r.damaged} bytes damaged" if r.damaged else ""
        print(f"{r.journal}  {r.service or '?'} pid {r.pid} ({state})  {r.signal}: {r.items} items, {r.bytes} bytes, {span}{damaged}")
    print(f"{sum(r.items for r in reports)} items in {len({r.journal for r in reports})} journals")


def _alive(journal: Path) -> bool:
    fd = lock(journal)
    if fd is None:
        return True
    os.close(fd)
    return False


def _iso(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    main()
