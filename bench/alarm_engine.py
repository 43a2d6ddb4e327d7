"""How fast the alarm engine is, against ``promtool test rules`` on the same series in the same run.

    python bench/alarm_engine.py                # both comparisons, with memory
    python bench/alarm_engine.py --alarms 50 --days 7

Prints one JSON object. ``ratio`` is promtool's wall time over ours for the same alarms on the same one-minute series; both sides read their
inputs from a file, evaluate every minute, and check one expectation an alarm (promtool as ALERTS, we as ALARM state). ``backtest`` is the
vectorised path on 30 days of 400 alarms. promtool comes with Debian's package prometheus; without it only our side runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from alarms.engine import MemorySource, MetricKey, Samples, parse_metric_alarm
from alarms.engine.vector import evaluate_history
from alarms.testing.case import DEFAULT_START

MINUTE, DAY = 60, 1440


def series(alarms: int, minutes: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One row an alarm: quiet noise with bursts above 1 of some minutes, about one a day."""
    random = np.random.default_rng(seed)
    values = random.uniform(0.0, 0.9, (alarms, minutes)).round(2)
    for row in values:
        for begin in random.integers(0, minutes, max(1, minutes // DAY)):
            row[begin : begin + random.integers(1, 15)] = 2.0
    return values


def definition(i: int) -> dict[str, Any]:
    """Alarm ``i``: 3 of 3 minutes above 1, or 3 of 5, by turns."""
    n = 3 if i % 2 else 5
    return {
        "AlarmName": f"alarm-{i}",
        "Namespace": "Bench",
        "MetricName": f"m{i}",
        "Statistic": "Maximum",
        "Period": 60,
        "EvaluationPeriods": n,
        "DatapointsToAlarm": 3,
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }


def promtool(directory: Path, values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """Wall seconds and peak memory of promtool on as many alerts of the same kind."""
    alarms, minutes = values.shape
    rules = []
    for i in range(alarms):
        n = 3 if i % 2 else 5
        expression = f"count_over_time((m{i} > 1)[{n}m:1m]) >= 3"
        rules.append({"alert": f"alarm-{i}", "expr": expression})
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "bench", "interval": "1m", "rules": rules}]}))
    quiet = [{"eval_time": "2m", "alertname": f"alarm-{i}", "exp_alerts": []} for i in range(alarms)]
    # the newest evaluation keeps promtool running over the whole stretch
    end = f"{minutes - 1}m"
    shown = [{"expr": "vector(1)", "eval_time": end, "exp_samples": [{"labels": "{}", "value": 1}]}]
    inputs = [{"series": f"m{i}", "values": " ".join(f"{value:g}" for value in values[i])} for i in range(alarms)]
    case = {"interval": "1m", "input_series": inputs, "alert_rule_test": quiet, "promql_expr_test": shown}
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (directory / "test.yaml").write_text(yaml.safe_dump(test, width=10**9))
    return measured(["promtool", "test", "rules", "test.yaml"], directory)


def ours(directory: Path, values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    """The same through ``alarms test`` as a user runs it: a new process, from the test file."""
    alarms, minutes = values.shape
    inputs = [
        {"metric": {"namespace": "Bench", "name": f"m{i}"}, "values": " ".join(f"{value:g}" for value in values[i])} for i in range(alarms)
    ]
    expect = [{"at": "2m", "alarm": f"alarm-{i}", "state": "OK"} for i in range(alarms)]
    expect.append({"at": f"{minutes - 1}m", "alarm": "alarm-0", "state": "OK"})
    content = {
        "definitions": [definition(i) for i in range(alarms)],
        "tests": [{"interval": "1m", "input_series": inputs, "expect": expect}],
    }
    (directory / "ours.yaml").write_text(yaml.safe_dump(content, width=10**9))
    root = Path(__file__).resolve().parent.parent
    return measured([sys.executable, "deploy.py", "alarms", "test", str(directory / "ours.yaml")], root)


def measured(command: list[str], directory: Path) -> dict[str, float]:
    """Wall seconds and peak resident megabytes of a process. Raises CalledProcessError with its output."""
    report = (
        "import resource, subprocess, sys, time; began = time.perf_counter();"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True); took = time.perf_counter() - began;"
        "sys.stderr.write(done.stdout[-2000:] + done.stderr[-2000:]) if done.returncode else None;"
        "print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); sys.exit(done.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", report, *command], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{done.stderr[-2000:]}")
    seconds, megabytes = done.stdout.split()
    return {"seconds": round(float(seconds), 3), "peak_mb": round(float(megabytes), 1)}


def backtest(alarms: int, days: int) -> dict[str, float]:
    """The vectorised path on ``days`` of one-minute data, everything in this process."""
    values = series(alarms, days * DAY, seed=2)
    source = MemorySource()
    times = DEFAULT_START + MINUTE * np.arange(days * DAY)
    for i in range(alarms):
        source.add(MetricKey.of("Bench", f"m{i}"), Samples.of(values[i], times=times))
    began = time.perf_counter()
    changes = sum(
        len(evaluate_history(parse_metric_alarm(definition(i)), source, DEFAULT_START, DEFAULT_START + days * DAY * MINUTE).transitions())
        for i in range(alarms)
    )
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    evaluations = alarms * days * DAY
    return {"seconds": round(took, 3), "peak_mb": round(peak, 1), "evaluations_per_s": round(evaluations / took), "transitions": changes}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alarms", type=int, default=50)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=3, help="the fastest of so many runs counts, by turns")
    given = parser.parse_args()
    values = series(given.alarms, given.days * DAY)
    result: dict[str, Any] = {"alarms": given.alarms, "days": given.days}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        has_peer = shutil.which("promtool") is not None
        mine, peer = [], []
        for _ in range(given.rounds):
            mine.append(ours(directory, values))
            if has_peer:
                peer.append(promtool(directory, values))
    result["ours"] = min(mine, key=lambda one: one["seconds"])
    if peer:
        result["promtool"] = min(peer, key=lambda one: one["seconds"])
        result["ratio"] = round(result["promtool"]["seconds"] / result["ours"]["seconds"], 2)
    result["backtest_400_alarms_30_days"] = backtest(400, 30)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
