"""CPU of one probe: ours against prometheus-blackbox-exporter (Debian's), the same target, the same run; and whether phases agree.

Each probe is a new connection, one GET, and a regular expression that has to match the body. CPU is user and system time of the prober's
process, per probe. Both probers are held to one core, as a small Lambda is; the target and the driver get the other. What blackbox spends
on being scraped is measured apart, from above: a probe of a closed port is everything but the exchange. ``ratio`` is ours over all of
blackbox's, to which the goals belong; ``net_ratio`` is over what is left without that, shown beside: TLS is about even then, since four
fifths of ours are OpenSSL's handshake. ``https`` has a P-256 certificate, ``https-rsa`` one of RSA with 2,048 bits, which ACM issues
unless told otherwise. Phases: medians at a server that takes 20 ms to answer and 20 ms to send.

    python bench/probe.py [--probes 1500] [--turns 9] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
BODY = b"<html><h1>Retail Store</h1>" + b"x" * 4000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY)
PAUSE_S = 0.02
GOALS = {"http": 0.5, "https": 0.85, "https-rsa": 0.85}
CONCURRENCY = 16

CONFIG = """
modules:
  http:
    prober: http
    timeout: 3s
    http:
      preferred_ip_protocol: ip4
      fail_if_body_not_matches_regexp: ["Retail Store"]
      tls_config: {{ca_file: {ca}}}
  closed:
    prober: tcp
    timeout: 3s
    tcp: {{preferred_ip_protocol: ip4}}
"""


def main() -> int:
    options = _options()
    if options.serve:
        return serve(options.serve, options.directory)
    if options.ours:
        return ours(options.ours, options.probes, options.directory, options.concurrency)
    binary = shutil.which("prometheus-blackbox-exporter")
    if binary is None:
        print("prometheus-blackbox-exporter is not installed (Debian: apt-get install prometheus-blackbox-exporter)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        result = measure(binary, Path(folder), options.probes // options.turns, options.turns)
    print(json.dumps(result, indent=1) if options.json else text(result))
    reached = all(row["ratio"] <= GOALS[row["scheme"]] for row in result["cpu"])
    return 0 if reached and result["phases_agree"] else 1


def measure(binary: str, folder: Path, probes: int, turns: int) -> dict[str, Any]:
    """All figures of one run."""
    certificates(folder)
    rows = []
    phases = {}
    with contextlib.ExitStack() as stack:
        exporter = stack.enter_context(blackbox(binary, folder))
        for scheme in GOALS:
            port = stack.enter_context(server(scheme, folder))
            slow = stack.enter_context(server(f"slow-{scheme}", folder))
            web = scheme.partition("-")[0]
            rows += [cpu_row(exporter, scheme, f"{web}://{HOST}:{port}/", probes, turns, many, folder) for many in (1, CONCURRENCY)]
            phases[scheme] = compare_phases(exporter, f"{web}://{HOST}:{slow}/", folder)
    agree = all(each["agree"] for by_phase in phases.values() for each in by_phase.values())
    return {"probes": probes * turns, "turns": turns, "cpu": rows, "phases_ms": phases, "phases_agree": agree}


def cpu_row(exporter: Exporter, scheme: str, url: str, probes: int, turns: int, concurrency: int, folder: Path) -> dict[str, Any]:
    """One comparison, each side's best of many turns taken in alternation, so that a busy neighbour hits both."""
    mine, theirs, scrape = [], [], []
    for _ in range(turns):
        mine.append(our_cpu(url, probes, concurrency, folder))
        theirs.append(exporter.cpu("http", url, probes, concurrency))
        scrape.append(exporter.cpu("closed", f"{HOST}:1", probes, concurrency))
    a, b, c = min(mine), min(theirs), min(scrape)
    return {
        "scheme": scheme,
        "concurrency": concurrency,
        "our_us": round(a),
        "blackbox_us": round(b),
        "blackbox_scrape_us": round(c),
        "ratio": round(a / b, 2),
        "net_ratio": round(a / (b - c), 2),
    }


def compare_phases(exporter: Exporter, url: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Median milliseconds of each phase, ours and theirs."""
    names = {"connect": "connect", "tls": "tls", "ttfb": "processing", "transfer": "transfer"}
    mine: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(6):
        theirs += [exporter.phases(url) for _ in range(5)]
        mine += json.loads(_run("--ours", url, "--probes", "5", "--directory", str(folder)))["phases"]
    compared = {}
    for name, other in names.items():
        if name in mine[0]:
            a, b = statistics.median(each[name] for each in mine), statistics.median(each[other] for each in theirs) * 1000
            compared[name] = {"ours": round(a, 3), "blackbox": round(b, 3), "agree": abs(a - b) <= max(1.0, 0.1 * b)}
    return compared


# ---------------------------------------------------------------------- ours


def our_cpu(url: str, probes: int, concurrency: int, folder: Path) -> float:
    """Microseconds of CPU per probe, in a process of its own."""
    line = _run("--ours", url, "--probes", str(probes), "--directory", str(folder), "--concurrency", str(concurrency))
    return float(json.loads(line)["cpu_us"])


def ours(url: str, probes: int, folder: str, concurrency: int) -> int:
    """The child: probe, say what it cost."""
    _prober_core()
    sys.path[0] = str(ROOT)  # in place of this folder, whose files are no modules
    from canaries.shared.exchange import Ask, Exchange, exchange
    from canaries.shared.resolve import resolver
    from canaries.shared.target import Target

    target = Target("name", url.rstrip("/"))
    resolve = resolver(None)
    tls = ssl.create_default_context(cafile=f"{folder}/ca.pem") if target.secure else None
    headers = {"Connection": "close", "User-Agent": "bench"}
    ask = Ask(target.host, target.port, target.secure, "/", body="Retail Store", headers=headers)

    def one(_: int) -> Exchange:
        return exchange(ask, resolve, tls)

    with ThreadPoolExecutor(concurrency) as pool:
        run = (lambda n: list(pool.map(one, range(n)))) if concurrency > 1 else (lambda n: [one(i) for i in range(n)])
        run(20)
        before = time.process_time()
        results = run(probes)
        cpu = time.process_time() - before
    failures = {str(each.failure) for each in results if not each.ok}
    if failures:
        print(failures, file=sys.stderr)
        return 1
    print(json.dumps({"cpu_us": cpu / probes * 1e6, "phases": [each.phases.as_dict() for each in results]}))
    return 0


# ---------------------------------------------------------------------- theirs


class Exporter:
    """A running blackbox exporter."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process, self._port = process, port

    def cpu(self, module: str, target: str, probes: int, concurrency: int) -> float:
        """Microseconds of its CPU per probe; it is asked over kept connections."""
        path = f"/probe?module={module}&target={target}"

        def worker(count: int) -> None:
            connection = HTTPConnection(HOST, self._port)
            for _ in range(count):
                connection.request("GET", path)
                answer = connection.getresponse().read()
                if b"probe_success 1" not in answer and module == "http":
                    raise SystemExit(answer.decode())
            connection.close()

        worker(20)
        before = self._cpu_us()
        with ThreadPoolExecutor(concurrency) as pool:
            list(pool.map(worker, [probes // concurrency] * concurrency))
        return (self._cpu_us() - before) / (probes // concurrency * concurrency)

    def phases(self, target: str) -> dict[str, float]:
        """Seconds of the phases of one probe."""
        with urllib.request.urlopen(f"http://{HOST}:{self._port}/probe?module=http&target={target}") as response:
            found = re.findall(r'probe_http_duration_seconds\{phase="(\w+)"\} (\S+)', response.read().decode())
        return {name: float(value) for name, value in found}

    def _cpu_us(self) -> float:
        """CPU of all its threads so far, in microseconds: finer than the 10 ms of /proc/PID/stat. Go keeps its threads."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in threads) / 1000


@contextlib.contextmanager
def blackbox(binary: str, folder: Path) -> Iterator[Exporter]:
    """Start the exporter on a free port."""
    config = folder / "blackbox.yml"
    config.write_text(CONFIG.format(ca=folder / "ca.pem"))
    port = _free_port()
    command = [binary, f"--config.file={config}", f"--web.listen-address={HOST}:{port}", "--log.level=error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=_prober_core)  # noqa: PLW1509 - no threads yet
    try:
        _wait_for(port)
        yield Exporter(process, port)
    finally:
        process.terminate()
        process.wait(10)


# ---------------------------------------------------------------------- the target


@contextlib.contextmanager
def server(kind: str, folder: Path) -> Iterator[int]:
    """The target, in a process of its own; yields its port."""
    command = [sys.executable, __file__, "--serve", kind, "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def serve(kind: str, folder: str) -> int:
    """The child: answer every connection once."""
    context = None
    if "https" in kind:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{folder}/{'rsa' if kind.endswith('rsa') else 'p256'}.pem")
    slow = kind.startswith("slow")
    listener = socket.create_server((HOST, 0), backlog=256)
    print(listener.getsockname()[1], flush=True)

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            talk = context.wrap_socket(connection, server_side=True) if context else connection
            talk.recv(65536)
            if slow:
                time.sleep(PAUSE_S)
            talk.sendall(HEAD + BODY[:100])
            if slow:
                time.sleep(PAUSE_S)
            talk.sendall(BODY[100:])
            if context:
                talk.close()

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        while True:
            pool.submit(answer, listener.accept()[0])


def certificates(folder: Path) -> None:
    """A certificate authority and certificate of each kind for the target; both probers trust both authorities."""
    import trustme

    kinds = {"p256": trustme.KeyType.ECDSA, "rsa": trustme.KeyType.RSA}
    authorities = {name: trustme.CA(key_type=kind) for name, kind in kinds.items()}
    (folder / "ca.pem").write_bytes(b"".join(each.cert_pem.bytes() for each in authorities.values()))
    for name, kind in kinds.items():
        authorities[name].issue_cert(HOST, key_type=kind).private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))


# ---------------------------------------------------------------------- small things


def text(result: dict[str, Any]) -> str:
    cpu = [
        f"  {row['scheme']:9} x{row['concurrency']:<2}  ours {row['our_us']:5}   blackbox {row['blackbox_us']:5}   ratio {row['ratio']:.2f}"
        f" (goal {GOALS[row['scheme']]})   scrape at most {row['blackbox_scrape_us']:4}   ratio without it {row['net_ratio']:.2f}"
        for row in result["cpu"]
    ]
    phases = [
        f"  {scheme:9} {name:9} ours {row['ours']:7.3f}   blackbox {row['blackbox']:7.3f}   {'agree' if row['agree'] else 'DISAGREE'}"
        for scheme, by_phase in result["phases_ms"].items()
        for name, row in by_phase.items()
    ]
    head = f"CPU per probe, microseconds ({result['probes']} probes, best of {result['turns']} turns)"
    return "\n".join([head, *cpu, "Phases, median milliseconds (within 1 ms or 10 %)", *phases])


def _run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _prober_core() -> None:
    """Stay on one core, the last."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        threading.Event().wait(0.05)
    raise SystemExit("the exporter does not listen")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--probes", type=int, default=1500, help="of each kind (default: 1500)")
    parser.add_argument("--turns", type=int, default=9, help="between which they are divided, ours and theirs in alternation (default: 9)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS, default="")
    parser.add_argument("--concurrency", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
