"""CPU per span, per log record and per Flask request: crosswatch-exporters against AWS's distro, the stock OTLP exporter and aws-xray-sdk.

    python bench/exporters_cpu.py setup /tmp/cwb          # an environment of its own for each (once)
    python bench/exporters_cpu.py spans /tmp/cwb          # also: logs, requests, size, import, start
    python bench/exporters_cpu.py spans /tmp/cwb --rounds 5 --items 40000

All run in the same session, interleaved round by round, against a sink in a process of its own; the median of the rounds is printed, and
its ratio
to each peer. CPU is user and system time of the whole process, all threads, from the first item until everything has been delivered.
Ours runs with
spool, limits, redaction, ledger, SigV4 and compression on; ADOT signs too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("null", "crosswatch", "otlp", "adot", "xray")
VENVS = {"null": "otlp"}
PACKAGES = {
    "adot": ["aws-opentelemetry-distro", "botocore", "flask", "requests"],
    "otlp": [
        "opentelemetry-sdk==1.45.1", "opentelemetry-exporter-otlp-proto-http==1.45.1", "opentelemetry-distro==0.66b1", "flask",
        "opentelemetry-instrumentation-flask==0.66b1", "opentelemetry-instrumentation-logging==0.66b1",
    ],
    "xray": ["aws-xray-sdk", "flask"],
    "crosswatch": [str(ROOT / "exporters"), "opentelemetry-sdk==1.45.1", "flask", "opentelemetry-instrumentation-flask==0.66b1"],
}  # fmt: skip


def setup(base: Path) -> None:
    """Make the environments."""
    for name, packages in PACKAGES.items():
        if not (base / name / "bin/python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(base / name)], check=True)
        subprocess.run([str(base / name / "bin/pip"), "install", "-q", *packages], check=True)


def measure(kind: str, tool: str, base: Path, items: int, sink: Sink) -> float:
    """Microseconds of CPU an item, of one run in a process of its own."""
    with tempfile.TemporaryDirectory() as spool:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": spool,
            "SINK": sink.url,
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{sink.udp_port}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "CROSSWATCH_SPOOL_DIR": f"{spool}/spool",
            "CROSSWATCH_SIGV4": "always",
            "OTEL_SERVICE_NAME": "bench",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        }
        python = base / VENVS.get(tool, tool) / "bin/python"
        worker = Path(__file__).with_name("exporters_worker.py")
        done = subprocess.run(
            [str(python), str(worker), kind, tool, str(items)], env=environ, capture_output=True, text=True, check=False, timeout=300
        )
    if done.returncode:
        raise SystemExit(f"{tool} {kind} failed:\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["us_per_item"])


class Sink:
    """The sink's process: takes every POST and every datagram, answers 200 and forgets."""

    def __init__(self) -> None:
        worker = Path(__file__).with_name("exporters_sink.py")
        self._process = subprocess.Popen([sys.executable, str(worker)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        http_port, self.udp_port = (int(port) for port in self._process.stdout.readline().split())
        self.url = f"http://127.0.0.1:{http_port}"

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def compare(kind: str, base: Path, items: int, rounds: int, tools: tuple[str, ...]) -> dict[str, float]:
    """Medians by tool, interleaved."""
    runs: dict[str, list[float]] = {tool: [] for tool in tools}
    sink = Sink()
    try:
        for _ in range(rounds):
            for tool in tools:
                runs[tool].append(measure(kind, tool, base, items, sink))
    finally:
        sink.close()
    return {tool: statistics.median(values) for tool, values in runs.items()}


def size(base: Path) -> None:
    """Packages and megabytes of each environment, without pip, setuptools and Flask's own packages."""
    for tool in ("crosswatch", "otlp", "adot", "xray"):
        site = next((base / tool / "lib").glob("python*/site-packages"))
        folders = [path for path in site.iterdir() if not path.name.startswith(("pip", "setuptools", "flask", "werkzeug", "jinja2"))]
        if not (site / "crosswatch_exporters").exists() and tool == "crosswatch":
            folders.append(ROOT / "exporters/crosswatch_exporters")  # installed as editable
        files = (f for folder in folders for f in ([folder] if folder.is_file() else folder.rglob("*")))
        megabytes = sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc") / 1e6
        print(f"size      {tool:12} {len(list(site.glob('*.dist-info'))) - 2:3} packages {megabytes:6.1f} MB")


START = """
import json, os, time
from opentelemetry.instrumentation.auto_instrumentation import initialize
initialize(swallow_exceptions=False)
print(json.dumps({"ms": time.process_time() * 1000}), flush=True)
os._exit(0)
"""
START_AS = {
    "crosswatch": {"OTEL_PYTHON_DISTRO": "crosswatch", "OTEL_PYTHON_CONFIGURATOR": "crosswatch"},
    "adot": {"OTEL_PYTHON_DISTRO": "aws_distro", "OTEL_PYTHON_CONFIGURATOR": "aws_configurator"},
    "otlp": {"OTEL_PYTHON_DISTRO": "distro", "OTEL_PYTHON_CONFIGURATOR": "configurator"},
}


def start_up(kind: str, base: Path, rounds: int) -> None:
    """Milliseconds of CPU, interleaved: `import` of the tool's modules, and `start` of a process under opentelemetry-instrument.

    `start` is all that the interpreter does before the service's first line, with all three signals on; a bare interpreter takes 10 to 15.
    """
    tools = ("crosswatch", "otlp", "adot", "xray") if kind == "import" else ("crosswatch", "otlp", "adot")
    runs: dict[str, list[float]] = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            with tempfile.TemporaryDirectory() as home:
                environ = {"PATH": os.environ["PATH"], "HOME": home, "SINK": "http://127.0.0.1:9", "AWS_REGION": "us-east-1"}
                command = [str(Path(__file__).with_name("exporters_worker.py")), "import", tool, "0"]
                if kind == "start":
                    command = ["-c", START]
                    environ |= START_AS[tool]
                    environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
                command = [str(base / tool / "bin/python"), *command]
                out = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, check=True)
                runs[tool].append(json.loads(out.stdout.splitlines()[-1])["ms"])
    medians = {tool: statistics.median(values) for tool, values in runs.items()}
    for tool, value in medians.items():
        print(f"{kind:9} {tool:12} {value:8.0f} ms   crosswatch is {medians['crosswatch'] / value:5.2f} of it")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["setup", "spans", "logs", "requests", "size", "import", "start"])
    parser.add_argument("base", type=Path)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tools", default="")
    arguments = parser.parse_args()
    if arguments.what == "setup":
        setup(arguments.base)
        return
    if arguments.what == "size":
        size(arguments.base)
        return
    if arguments.what in ("import", "start"):
        start_up(arguments.what, arguments.base, arguments.rounds)
        return
    tools = tuple(arguments.tools.split(",")) if arguments.tools else tuple(t for t in TOOLS if arguments.what != "logs" or t != "xray")
    medians = compare(arguments.what, arguments.base, arguments.items, arguments.rounds, tools)
    ours = medians.get("crosswatch", 0.0)
    for tool, value in medians.items():
        print(f"{arguments.what:9} {tool:12} {value:8.1f} us   crosswatch is {ours / value:5.2f} of it")


if __name__ == "__main__":
    main()
