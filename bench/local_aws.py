"""How fast the local AWS answers, beside moto's own server, in one run: ``python bench/local_aws.py [--seconds 3]``.

Both run in a process of their own; the same boto3 client calls both, in turn, so that a busy machine slows both alike. Prints calls a
second, the ratio, and the resident memory of each process afterwards.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from lab.plan import LabPlan

if TYPE_CHECKING:
    from collections.abc import Callable

REGION = "us-east-1"
DATA = [
    {"MetricName": f"m{index % 5}", "Value": float(index), "Dimensions": [{"Name": "Target", "Value": f"t{index}"}]} for index in range(20)
]
LINES = [json.dumps({"level": "INFO", "ms": index, "path": "/cart"}) for index in range(50)]


def client(service: str, port: int, plan: LabPlan) -> Any:
    """A client of either server."""
    pair = plan.credentials["admin"]
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=pair.access_key,
        aws_secret_access_key=pair.secret_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def calls(port: int, plan: LabPlan) -> dict[str, Callable[[], Any]]:
    """The calls to compare, on clients that are connected."""
    cloudwatch, logs, sqs = (client(name, port, plan) for name in ("cloudwatch", "logs", "sqs"))
    logs.create_log_group(logGroupName="g")
    logs.create_log_stream(logGroupName="g", logStreamName="s")
    query = {"Id": "m", "MetricStat": {"Metric": {"Namespace": "N", "MetricName": "m1"}, "Period": 60, "Stat": "Average"}}

    def put_logs() -> None:
        now = round(time.time() * 1000)
        logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[{"timestamp": now, "message": line} for line in LINES])

    def get_data() -> None:
        now = time.time()
        cloudwatch.get_metric_data(MetricDataQueries=[query], StartTime=now - 3600, EndTime=now)

    return {
        "PutMetricData, 20 data": lambda: cloudwatch.put_metric_data(Namespace="N", MetricData=DATA),
        "GetMetricData, 1 hour": get_data,
        "DescribeAlarms": cloudwatch.describe_alarms,
        "PutLogEvents, 50 events": put_logs,
        "ListQueues (moto behind both)": sqs.list_queues,
    }


def wait_for(port: int) -> None:
    """Until something listens."""
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}")


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """The process's resident memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each call is repeated on each server")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        plan = LabPlan.make(Path(folder))
        plan.save()
        ours = plan.regions[REGION].aws_port
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            theirs = int(free.getsockname()[1])
        processes = [
            subprocess.Popen([sys.executable, "-m", "lab.aws", "--plan", str(Path(folder) / "plan.json")]),
            subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(theirs)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ),
        ]
        try:
            for port in (ours, theirs):
                wait_for(port)
            compare(calls(ours, plan), calls(theirs, plan), seconds)
            print(f"resident memory: {resident_mb(processes[0]):.0f} MB, moto {resident_mb(processes[1]):.0f} MB")
        finally:
            for process in processes:
                process.terminate()
                process.wait(10)


def compare(ours: dict[str, Callable[[], Any]], theirs: dict[str, Callable[[], Any]], seconds: float) -> None:
    """Each call in turn on both, in slices of a tenth of a second."""
    print(f"{'call':32}{'ours/s':>9}{'moto/s':>9}{'ratio':>8}")
    for name, call in ours.items():
        rates: dict[str, list[float]] = {"ours": [], "moto": []}
        end = time.perf_counter() + 2 * seconds
        while time.perf_counter() < end:
            for who, one in (("ours", call), ("moto", theirs[name])):
                count, started = 0, time.perf_counter()
                while time.perf_counter() < started + 0.1:
                    one()
                    count += 1
                rates[who].append(count / (time.perf_counter() - started))
        a, b = (statistics.median(rates[who]) for who in ("ours", "moto"))
        print(f"{name:32}{a:9.0f}{b:9.0f}{a / b:8.1f}")


if __name__ == "__main__":
    main()
