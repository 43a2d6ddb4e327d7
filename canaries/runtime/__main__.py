"""``python -m canaries.runtime BUNDLE --handler file.function``: run a canary here, with no AWS at all or against any endpoint.

Without ``--aws`` nothing is published and no credentials are passed; artifacts go to a folder. With it, the run gets this process's
``AWS_*`` variables, publishes its metrics, and stores artifacts in S3 where ``--artifacts`` is an ``s3://`` address.
Exit: 0 passed, 1 failed, 2 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from dataclasses import replace
from pathlib import Path

from canaries.runtime.api import CanaryRefusedError, LogLine, RunRequest, RunResult
from canaries.runtime.layout import hint
from canaries.runtime.sandbox import Sandbox


def main(arguments: list[str] | None = None) -> int:
    """Run the canary once or more; returns the exit code."""
    options = _parser().parse_args(arguments)
    if not options.bundle.exists():
        print(f"{options.bundle}: no such file; give the path of a bundle's zip or folder", file=sys.stderr)
        return 2
    environment = dict(pair.partition("=")[::2] for pair in options.env)
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} if options.aws else {}
    request = RunRequest(
        canary=options.name,
        handler=options.handler,
        bundle=options.bundle,
        region=options.region,
        artifacts=options.artifacts,
        environment=environment,
        credentials=credentials,
        timeout_s=options.timeout,
        memory_mb=options.memory,
        ephemeral_mb=options.ephemeral,
        max_retries=options.retries,
        dry_run=options.dry_run,
        log=None if options.json else _print_line,
    )
    passed = True
    with Sandbox(options.name) as sandbox:
        for _ in range(options.runs):
            try:
                result = _with_retries(sandbox, request, options.json)
            except CanaryRefusedError as error:
                for problem in error.problems:
                    print(f"{options.bundle}: {problem}", file=sys.stderr)
                return 2
            passed = passed and result.passed
            if not result.passed and (advice := hint(options.bundle, options.handler)):
                print(advice, file=sys.stderr)
    return 0 if passed else 1


def _with_retries(sandbox: Sandbox, request: RunRequest, as_json: bool) -> RunResult:
    """One scheduled run: attempts until one passes or none are left, each printed as it ends; returns the last."""
    for attempt in range(request.max_retries + 1):
        result = sandbox.run(replace(request, run_id=str(uuid.uuid4()), retry_attempt=attempt))
        print(json.dumps(_summary(result)) if as_json else _text(result))
        if result.passed:
            break
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m canaries.runtime", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bundle", type=Path, help="the zip, or a folder with python/ in it")
    parser.add_argument("--handler", required=True, help="file.function or folder/file.function")
    parser.add_argument("--name", default="local", help="the canary's name (default: local)")
    parser.add_argument("--region", default=os.environ.get("AWS_REGION", "us-east-1"))
    parser.add_argument("--artifacts", default="canary-artifacts", help="folder or s3://bucket/prefix (default: canary-artifacts)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the canary; may be repeated")
    parser.add_argument("--timeout", type=float, default=60, help="seconds, 3 to 840")
    parser.add_argument("--memory", type=int, default=1024, help="MB, 960 to 3008, a multiple of 64")
    parser.add_argument("--ephemeral", type=int, default=1024, help="MB that /tmp holds")
    parser.add_argument("--runs", type=int, default=1, help="how many runs of the same warm process")
    parser.add_argument("--retries", type=int, default=0, help="how often a failed run is tried again, 0 to 2")
    parser.add_argument("--dry-run", action="store_true", help="publish under the names of a dry run")
    parser.add_argument("--aws", action="store_true", help="pass this process's AWS_* variables as the canary's role")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, no log")
    return parser


def _print_line(line: LogLine) -> None:
    print(line.message, flush=True)


def _summary(result: RunResult) -> dict[str, object]:
    return {
        "run_id": result.run_id,
        "state": result.state,
        "test_result": result.test_result,
        "state_reason": result.state_reason,
        "state_reason_code": result.state_reason_code,
        "seconds": round(result.ended - result.started, 3),
        "cold_start": result.cold_start,
        "max_memory_mb": round(result.max_memory_mb, 1),
        "steps": [{"name": step.name, "error": step.error} for step in result.steps],
        "artifact_location": result.artifact_location,
        "artifacts": [artifact.key for artifact in result.artifacts],
        "published": result.published,
    }


def _text(result: RunResult) -> str:
    head = f"{result.state} in {result.ended - result.started:.1f} s, {result.max_memory_mb:.0f} MB"
    why = f"\n{result.state_reason_code}: {result.state_reason}" if result.state_reason else ""
    steps = "".join(
        f"\n  {'ok  ' if step.passed else 'FAIL'} {step.name}{'' if step.passed else ': ' + str(step.error)}" for step in result.steps
    )
    where = f"\nartifacts: {result.artifact_location}" if result.artifacts else ""
    return head + why + steps + where


if __name__ == "__main__":
    sys.exit(main())
