"""Our bundles under AWS's own open debug wrapper, and in our stand-in: do both come to the same verdict?

The wrapper is `python-canary/src/cw-synthetics.py` of aws-samples/synthetics-canary-local-debugging-sample; DIR is a checkout of it (it is
not part of this repository). It runs as it is, above our `aws_synthetics`, since AWS's is only in Lambda layers. It looks for the script
in /var/task and writes to /tmp/private/synthetics: both are made for the run and removed, so it wants root, or a container. Every bundle
is rendered from topology.yaml with a small two-Region store in place of the example's, and runs twice: store well, store broken.

    git clone https://github.com/aws-samples/synthetics-canary-local-debugging-sample
    python bench/debug_wrapper.py synthetics-canary-local-debugging-sample [--json]

Exit: 0 the verdicts agree, 1 they do not, 2 the wrapper cannot be run here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # in place of this folder, whose files are no modules

from canaries.bundle import KINDS, Bundle, Kind, build
from canaries.config import canary_config
from canaries.runtime import RunRequest, Sandbox
from canaries.runtime.sandbox import LAYER
from tests.canaries.servers import CREDENTIALS, Recorder, recording
from tests.canaries.shop_server import REGIONS, Shop, shop
from topology.loading import loads

WRAPPER = Path("python-canary/src/cw-synthetics.py")
TASK = Path("/var/task")
PRIVATE = Path("/tmp/private")
PAGES = [{"name": "home", "path": "/home", "body": "Watches"}, {"name": "catalog", "path": "/catalog", "body": "Chronograf"}]
ROUNDS = {"every_s": 2.0, "offset_s": 0.0, "until_s": 4.0, "retry_after_s": 0.5}
TIMEOUT_S = 90

FUNCTION = """
import json, runpy, sys, time
class Context:
    aws_request_id = "00000000-0000-0000-0000-000000000001"
    def __init__(self, seconds):
        self.deadline = time.time() + seconds
    def get_remaining_time_in_millis(self):
        return int((self.deadline - time.time()) * 1000)
wrapper, event, seconds = sys.argv[1:]
print(runpy.run_path(wrapper)["handler"](json.loads(event), Context(float(seconds))))
"""  # the process that stands for the Lambda function: the wrapper's handler, once; its answer is the last line


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to: the script's status, its steps with whether they passed, and what the wrapper says besides."""

    status: str
    steps: tuple[tuple[str, bool], ...]
    said: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One bundle in one state of the store."""

    kind: str
    store: str
    theirs: Verdict
    ours: Verdict

    @property
    def agree(self) -> bool:
        """Whether both came to the same."""
        return (self.theirs.status, self.theirs.steps) == (self.ours.status, self.ours.steps)


def main() -> int:
    options = _options()
    problems = unusable(options.directory)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 2
    for noisy in ("werkzeug", "aws"):  # the recorder serves no RDS: what the probe asks of it is an error, in its log too
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    kinds = [kind for kind in KINDS if kind != "journey" or shutil.which("chromedriver")]
    with shop() as store, recording() as east, recording() as west:
        rows = [row for kind in kinds for row in compare(options.directory, kind, store, (east, west))]
    for kind in set(KINDS) - set(kinds):
        print(f"{kind}: not run, chromedriver is not installed (Debian: chromium, chromium-driver)", file=sys.stderr)
    print(json.dumps([{**_plain(row), "agree": row.agree} for row in rows], indent=1) if options.json else text(rows))
    return 0 if all(row.agree for row in rows) else 1


def unusable(directory: Path) -> list[str]:
    """Why the wrapper cannot be run here; empty where it can."""
    problems = [f"{path} exists; the wrapper needs it to itself: run this where there is none" for path in (TASK, PRIVATE) if path.exists()]
    if not (directory / WRAPPER).is_file():
        problems.append(f"{directory}: there is no {WRAPPER}; give a checkout of aws-samples/synthetics-canary-local-debugging-sample")
    if not os.access(TASK.parent, os.W_OK):
        problems.append(f"{TASK} cannot be made: run this as root, or in a container")
    return problems


def compare(directory: Path, kind: Kind, store: Shop, aws: tuple[Recorder, Recorder]) -> Iterator[Row]:
    """A kind of bundle with the store well, then broken: its catalog answers 500."""
    bundle = rendered(kind, store, aws)
    for state in ("well", "broken"):
        store.broken = {} if state == "well" else {"GET /catalog": 500}
        yield Row(kind, state, under_wrapper(directory, bundle), in_stand_in(bundle))
    store.broken = {}


def rendered(kind: Kind, store: Shop, aws: tuple[Recorder, Recorder]) -> Bundle:
    """The bundle of the example topology, at this store and these endpoints."""
    document = yaml.safe_load((ROOT / "topology.yaml").read_text())
    document["pages"] = PAGES
    for region, host, recorder in zip(REGIONS, ("127.0.0.1", "127.0.0.2"), aws, strict=True):
        document["regions"][region]["alb"]["url"] = f"http://{host}:{store.ports[region]}"
        document.setdefault("endpoints", {})[region] = dict.fromkeys(("monitoring", "xray", "rds", "s3"), recorder.url)
    config = canary_config(kind, loads(yaml.safe_dump(document)), REGIONS[0])
    config["targets"][-1]["url"] = f"http://127.0.0.1:{store.ports[REGIONS[0]]}"
    if kind == "probe":
        config |= {"rounds": ROUNDS, "arc": None}
    return build(kind, config)


# ---------------------------------------------------------------------- the wrapper


def under_wrapper(directory: Path, bundle: Bundle) -> Verdict:
    """One run under AWS's wrapper, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task, scratch = folder / "task", folder / "tmp"
        scratch.mkdir()
        unpack(bundle, task)
        event = {
            "canaryName": f"retail-{bundle.kind}",
            "artifactS3Location": {"s3Bucket": "", "s3Key": ""},
            "customerCanaryHandlerName": bundle.handler,
            "canaryRunId": "00000000-0000-0000-0000-000000000001",
        }
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": f"{task}:{LAYER}",
            "TMPDIR": str(scratch),
            "HOME": str(scratch),
            "AWS_REGION": REGIONS[0],
            **CREDENTIALS,
        }
        command = [sys.executable, "-P", "-c", FUNCTION, str((directory / WRAPPER).absolute()), json.dumps(event), str(TIMEOUT_S)]
        with in_place(task):
            done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            return Verdict("LOST", (), done.stderr[-500:])
        answer = json.loads(done.stdout.splitlines()[-1])
        report = json.loads(next(scratch.glob("SyntheticsReport-*.json")).read_text())
        steps = tuple((step["stepName"], step["status"] == "PASSED") for step in report["customerScript"]["steps"])
        said = "; ".join(answer[key] for key in ("testRunError", "executionError") if answer[key] != "null")
        return Verdict(answer["canaryStatus"], steps, said)


def unpack(bundle: Bundle, task: Path) -> None:
    """What is below ``python/`` in the bundle, in the function's own folder."""
    archive = task.with_suffix(".zip")
    archive.write_bytes(bundle.data)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(task.with_suffix(".all"))
    (task.with_suffix(".all") / "python").rename(task)


@contextlib.contextmanager
def in_place(task: Path) -> Iterator[None]:
    """The folder as /var/task, until the run is over."""
    TASK.symlink_to(task)
    try:
        yield
    finally:
        TASK.unlink()
        shutil.rmtree(PRIVATE, ignore_errors=True)


# ---------------------------------------------------------------------- ours


def in_stand_in(bundle: Bundle) -> Verdict:
    """One run of the same zip in our runtime, without AWS."""
    with tempfile.TemporaryDirectory() as name, Sandbox(bundle.kind) as sandbox:
        path = Path(name) / bundle.file_name
        path.write_bytes(bundle.data)
        result = sandbox.run(
            RunRequest(
                canary=f"retail-{bundle.kind}",
                handler=bundle.handler,
                bundle=path,
                region=REGIONS[0],
                timeout_s=TIMEOUT_S,
            )
        )
    return Verdict(str(result.test_result), tuple((step.name, step.passed) for step in result.steps), result.state_reason)


# ---------------------------------------------------------------------- small things


def text(rows: list[Row]) -> str:
    lines = [f"{'bundle':8} {'store':7} {'debug wrapper':26} {'stand-in':26}"]
    for row in rows:
        theirs, ours = (f"{each.status}, {sum(ok for _, ok in each.steps)} of {len(each.steps)} steps" for each in (row.theirs, row.ours))
        lines.append(f"{row.kind:8} {row.store:7} {theirs:26} {ours:26} {'agree' if row.agree else 'DISAGREE'}")
        lines += [f"         {each.said[:200]}" for each in (row.theirs, row.ours) if each.said and not row.agree]
    return "\n".join(lines)


def _plain(row: Row) -> dict[str, Any]:
    sides = {"debug_wrapper": row.theirs, "stand_in": row.ours}
    return {
        "bundle": row.kind,
        "store": row.store,
        **{name: {"status": each.status, "steps": dict(each.steps), "said": each.said} for name, each in sides.items()},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="a checkout of the wrapper's repository")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
