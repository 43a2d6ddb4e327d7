"""What the runtime does around a script: verdicts, limits, artifacts, metrics, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from canaries.runtime import CanaryRefusedError, ReasonCode, RunRequest, Sandbox
from canaries.runtime import TestResult as Outcome
from canaries.runtime.layout import hint
from tests.canaries.servers import CREDENTIALS, Recorder, Runner, bundle

if TYPE_CHECKING:
    from canaries.runtime import RunResult

ROOT = Path(__file__).parents[2]


def reason(result: RunResult) -> str:
    return f"{result.test_result} {result.state_reason_code}: {result.state_reason}"


# ---------------------------------------------------------------------- verdicts

PASSING = {
    "sync": "def handler(event, context): return 'done'",
    "async": "async def handler(event, context): return {'done': 1}",
    "returns nothing": "def handler(event, context): pass",
    "with boto3 and selenium at hand": "import boto3, selenium\ndef handler(event, context): return boto3.__version__",
    "step awaited": """
        from aws_synthetics.selenium import synthetics_webdriver as webdriver
        async def handler(event, context):
            async def load(): return 7
            assert await webdriver.execute_step('sync', lambda: 6) == 6
            assert await webdriver.execute_step('async', load) == 7
        """,
    "context and event": """
        import os
        def handler(event, context):
            assert event['canaryName'] == 'tested' and event['canaryRunId'] == context.aws_request_id
            assert 50_000 < context.get_remaining_time_in_millis() <= 60_000
            assert os.environ['AWS_LAMBDA_FUNCTION_NAME'].startswith('cwsyn-tested-')
            assert context.function_name == os.environ['AWS_LAMBDA_FUNCTION_NAME']
            assert context.invoked_function_arn.endswith(f':{context.function_name}:{context.function_version}')
            assert context.log_group_name == f'/aws/lambda/{context.function_name}' == os.environ['AWS_LAMBDA_LOG_GROUP_NAME']
            assert f'/[{context.function_version}]' in context.log_stream_name == os.environ['AWS_LAMBDA_LOG_STREAM_NAME']
            assert context.identity is None and context.client_context is None and context.memory_limit_in_mb == '1024'
        """,
}

FAILING = {
    "raises": ("def handler(event, context): raise RuntimeError('the store is closed')", "RuntimeError: the store is closed"),
    "returns a set": ("def handler(event, context): return {1, 2}", "TypeError: Object of type set is not JSON serializable"),
    "does not compile": ("def handler(event context): pass", "SyntaxError"),
    "fails to import": ("import requests\ndef handler(event, context): pass", "No module named 'requests'"),
    "imports this repository": ("import topology\ndef handler(event, context): pass", "No module named 'topology'"),
    "has no such function": ("def main(event, context): pass", "has no attribute 'handler'"),
    "uses a function that Python canaries lack": (
        (
            "from aws_synthetics.selenium import synthetics_webdriver\n"
            "async def handler(event, context): await synthetics_webdriver.execute_http_step('x', {})"
        ),
        "has no attribute 'execute_http_step'",
    ),
    "sets an unknown option": (
        (
            "from aws_synthetics.common import synthetics_configuration\n"
            "def handler(event, context): synthetics_configuration.set_config({'screenshots': True})"
        ),
        "unknown option(s) screenshots",
    ),
    "step fails": (
        (
            "from aws_synthetics.selenium import synthetics_webdriver\n"
            "async def handler(event, context): await synthetics_webdriver.execute_step('pay', lambda: 1 / 0)"
        ),
        "ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("script", PASSING.values(), ids=PASSING)
def test_a_good_script_passes(runner: Runner, script: str) -> None:
    result = runner.script(textwrap.dedent(script))
    assert result.passed, reason(result)
    assert (result.test_result, result.state_reason_code) == (Outcome.PASSED, None)
    assert "SyntheticsReport-PASSED.json" in [each.key for each in result.artifacts]


@pytest.mark.parametrize(("script", "expected"), FAILING.values(), ids=FAILING)
def test_a_bad_script_fails_with_a_clear_reason_and_the_runtime_lives_on(runner: Runner, script: str, expected: str) -> None:
    result = runner.script(script)
    assert (result.passed, result.test_result, result.state_reason_code) == (False, Outcome.FAILED, ReasonCode.CANARY_FAILURE)
    assert expected in result.state_reason
    assert "SyntheticsReport-FAILED.json" in [each.key for each in result.artifacts]
    assert runner.script(PASSING["sync"]).passed


ENDING = {
    "sys.exit": ("import sys\ndef handler(event, context): sys.exit(3)", "Runtime exited with error: exit status 3"),
    "sys.exit without a word": ("import sys\ndef handler(event, context): sys.exit()", "Runtime exited without providing a reason"),
    "os._exit": ("import os\ndef handler(event, context): os._exit(9)", "exit status 9"),
    "kills itself": ("import os, signal\ndef handler(event, context): os.kill(os.getpid(), signal.SIGSEGV)", "signal: SIGSEGV"),
    "exits on import": ("raise SystemExit(4)", "exit status 4"),
    "hangs": ("import time\ndef handler(event, context): time.sleep(60)", "Task timed out after 3.00 seconds"),
    "hangs with signals blocked": (
        "import signal, time\ndef handler(event, context):\n signal.signal(signal.SIGTERM, signal.SIG_IGN)\n while True: time.sleep(1)",
        "Task timed out after 3.00 seconds",
    ),
}


@pytest.mark.parametrize(("script", "expected"), ENDING.values(), ids=ENDING)
def test_a_script_that_ends_or_hangs_the_process_has_no_result_and_the_runtime_lives_on(runner: Runner, script: str, expected: str) -> None:
    result = runner.script(script, timeout_s=3)
    assert (result.passed, result.test_result, result.state_reason_code) == (False, Outcome.UNKNOWN, ReasonCode.CANARY_FAILURE)
    assert result.state_reason.startswith("No test result returned.")
    assert expected in result.state_reason
    assert runner.sandbox.pid is None
    assert runner.script(PASSING["sync"]).passed


def test_a_script_that_eats_memory_is_killed(runner: Runner) -> None:
    """The limit is on what the processes hold, as Lambda's is."""
    result = runner.script("import time\ndef handler(event, context):\n held = b'x' * (1100 << 20)\n time.sleep(20)", memory_mb=960)
    assert "signal: killed (memory:" in result.state_reason
    assert result.max_memory_mb > 960
    assert result.ended - result.started < 15


@pytest.mark.slow
def test_a_script_that_writes_a_gigabyte_finds_its_disk_full(runner: Runner) -> None:
    script = (
        "import tempfile\ndef handler(event, context):\n with open(tempfile.gettempdir() + '/big', 'wb') as f:\n"
        "  for _ in range(1024): f.write(bytes(1 << 20))"
    )
    result = runner.script(script)
    assert "No space left on device" in result.state_reason
    assert runner.script(PASSING["sync"]).passed


def test_a_script_that_prints_without_end_keeps_its_first_and_last_lines(runner: Runner) -> None:
    result = runner.script("def handler(event, context):\n for i in range(20000): print('line', i)")
    assert result.passed
    lines = [line.message for line in result.log]
    assert "line 0" in lines
    assert "line 19999" in lines
    assert len(lines) < 4100
    assert any("lines left out" in line for line in lines)


def test_a_script_that_forks_answers_once_and_leaves_nobody_behind(runner: Runner) -> None:
    result = runner.script("import os, time\ndef handler(event, context):\n  if os.fork() == 0: time.sleep(0.2)\n  return 'both of us'")
    assert result.passed, reason(result)
    assert runner.script("def handler(event, context): return 1").passed


def test_processes_that_a_script_detached_end_with_the_sandbox(tmp_path: Path) -> None:
    script = (
        "import subprocess\ndef handler(event, context):\n"
        " p = subprocess.Popen(['setsid', 'sleep', '300'], start_new_session=True)\n return p.pid"
    )
    with Sandbox("tested") as sandbox:
        result = Runner(sandbox, tmp_path).script(script)
        pid = next(int(line.message.split()[-1]) for line in result.log if "response" in line.message)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/status").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, "the detached process lives"
        time.sleep(0.05)


READ_ONLY = {
    "the working directory": "open('mine.txt', 'w')",
    "its own code": "open(__file__, 'a')",
    "a folder beside its code": "pathlib.Path(__file__).with_name('cache').mkdir()",
    "another folder of the machine": "pathlib.Path('/var/tmp/mine.txt').touch()",
    "a rename out of /tmp": "(tmp / 'a').write_text('a'), (tmp / 'a').rename('/opt-a')",
}


@pytest.mark.parametrize("line", READ_ONLY.values(), ids=READ_ONLY)
def test_only_tmp_can_be_written_to(runner: Runner, line: str) -> None:
    script = f"import pathlib, tempfile\ntmp = pathlib.Path(tempfile.gettempdir())\ndef handler(event, context):\n {line}"
    assert "OSError: [Errno 30] Read-only file system" in runner.script(script).state_reason


def test_what_lambda_lets_a_script_write_is_written(runner: Runner) -> None:
    script = (
        "import os, pathlib, subprocess, tempfile\ndef handler(event, context):\n tmp = pathlib.Path(tempfile.gettempdir())\n"
        " (tmp / 'deep/er').mkdir(parents=True)\n (tmp / 'deep/er/a').write_text('a')\n (tmp / 'deep/er/a').rename(tmp / 'b')\n"
        " open(os.devnull, 'w').write('x')\n os.chdir(tmp)\n open('c', 'w').write('c')\n"
        " tempfile.TemporaryFile().write(b'x')\n subprocess.run(['true'], check=True, stdout=subprocess.DEVNULL)\n"
        " open(__file__).read()"
    )
    result = runner.script(script)
    assert result.passed, reason(result)
    assert {"b", "c"} <= {each.key for each in result.artifacts}


# ---------------------------------------------------------------------- warm and cold


def test_the_process_stays_warm_with_its_globals_and_its_tmp_is_emptied(runner: Runner) -> None:
    script = (
        "import os, tempfile\nseen = []\ndef handler(event, context):\n seen.append(1)\n"
        " assert not [n for n in os.listdir(tempfile.gettempdir()) if n.startswith('mine')]\n"
        " open(tempfile.gettempdir() + '/mine.txt', 'w').write('x')\n return len(seen)"
    )
    first, second = runner.script(script), runner.script(script)
    assert (first.cold_start, second.cold_start) == (True, False)
    assert "response 2" in " ".join(line.message for line in second.log)
    assert "mine.txt" in [each.key for each in second.artifacts]


def test_new_code_or_a_new_environment_is_a_cold_start(runner: Runner) -> None:
    script = "import os\ndef handler(event, context): return os.environ.get('STORE')"
    runner.script(script, environment={"STORE": "a"})
    result = runner.script(script, environment={"STORE": "b"})
    assert result.cold_start
    assert any('"b"' in line.message for line in result.log)


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Killed without a chance to clean up, the parent takes the child along."""
    path = bundle(tmp_path, {"python/canary.py": "def handler(event, context): return 1"})
    program = f"""
import time
from pathlib import Path
from canaries.runtime import RunRequest, Sandbox
sandbox = Sandbox("tested", Path({str(tmp_path)!r}))
sandbox.run(RunRequest(canary="tested", handler="canary.handler", bundle=Path({str(path)!r}), region="us-east-1"))
print(sandbox.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(5)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


# ---------------------------------------------------------------------- layout

LAYOUTS = {
    "file.function": ({"python/canary.py": "def main(e, c): return 1"}, "canary.main", None),
    "folder/file.function": ({"python/deep/canary.py": "def main(e, c): return 1"}, "deep/canary.main", None),
    "package beside it": (
        {"python/canary.py": "from shop.cart import total\ndef main(e, c): return total()", "python/shop/cart.py": "def total(): return 3"},
        "canary.main",
        None,
    ),
    "not below python/": ({"canary.py": "def main(e, c): return 1"}, "canary.main", "No module named: canary"),
    "in another folder": ({"python/deep/canary.py": "def main(e, c): return 1"}, "canary.main", "No module named: canary"),
}


@pytest.mark.parametrize(("files", "handler", "problem"), LAYOUTS.values(), ids=LAYOUTS)
def test_where_a_handler_is_looked_for(runner: Runner, files: dict[str, str], handler: str, problem: str | None) -> None:
    result = runner.files(files, handler)
    if problem is None:
        assert result.passed, reason(result)
    else:
        assert problem in result.state_reason
        assert hint(runner.folder / "bundle.zip", handler).startswith(f"handler {handler} needs python/canary.py")


def test_what_is_not_a_zip_is_said_to_be_none(runner: Runner) -> None:
    path = runner.folder / "bundle.zip"
    path.write_bytes(b"no zip at all")
    result = runner.sandbox.run(runner.request(path, "canary.handler"))
    assert "Could not unzip uploaded file" in result.state_reason


REFUSED = {
    "name": ({"canary": "Not Lower"}, "at 'name' failed to satisfy constraint"),
    "handler without a function": ({"handler": "canary"}, "at 'code.handler' failed"),
    "timeout": ({"timeout_s": 2}, "greater than or equal to 3"),
    "timeout of hours": ({"timeout_s": 900}, "less than or equal to 840"),
    "memory": ({"memory_mb": 1000}, "1000 is not a multiple of 64"),
    "environment": ({"environment": {"BIG": "x" * 4096}}, "exceeded the 4KB limit (4099 bytes)"),
    "reserved variable": ({"environment": {"AWS_REGION": "eu-west-1"}}, "Reserved keys used in this request: AWS_REGION"),
    "active tracing": ({"active_tracing": True}, "only for canaries that use version syn-nodejs-2.0 or later"),
    "another language's runtime": ({"runtime_version": "syn-nodejs-puppeteer-10.0"}, "not a Python runtime"),
}


@pytest.mark.parametrize(("changes", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_aws_refuses_is_refused(runner: Runner, changes: dict[str, Any], problem: str) -> None:
    values: dict[str, Any] = {"canary": "tested", "handler": "canary.handler", "region": "us-east-1", **changes}
    with pytest.raises(CanaryRefusedError) as caught:
        runner.sandbox.run(RunRequest(bundle=bundle(runner.folder, {"python/canary.py": ""}), **values))
    assert problem in str(caught.value)


def test_all_objections_are_made_at_once(runner: Runner) -> None:
    request = runner.request(runner.folder, "canary", timeout_s=1, memory_mb=64, canary="A")
    with pytest.raises(CanaryRefusedError) as caught:
        runner.sandbox.run(request)
    assert len(caught.value.problems) == 4


# ---------------------------------------------------------------------- artifacts, report, metrics

STEPS = """
from aws_synthetics.common import synthetics_configuration
from aws_synthetics.selenium import synthetics_webdriver as webdriver
async def handler(event, context):
    synthetics_configuration.set_config({'continue_on_step_failure': True})
    await webdriver.execute_step('one', lambda: None)
    await webdriver.execute_step('two', lambda: 1 / 0)
    await webdriver.execute_step('three', lambda: None)
"""


def test_continue_on_step_failure_goes_on_and_the_run_still_fails(runner: Runner) -> None:
    result = runner.script(STEPS)
    assert [(step.name, step.passed) for step in result.steps] == [("one", True), ("two", False), ("three", True)]
    assert (result.passed, result.state_reason) == (False, "two: ZeroDivisionError: division by zero")


def test_an_execution_error_fails_the_run_but_not_the_test(runner: Runner) -> None:
    result = runner.script(
        "from aws_synthetics.selenium import synthetics_webdriver\n"
        "def handler(event, context): synthetics_webdriver.add_execution_error('no picture:', ValueError('dark'))"
    )
    assert (result.passed, result.test_result, result.state_reason_code) == (False, Outcome.PASSED, ReasonCode.EXECUTION_FAILURE)
    assert result.state_reason == "no picture: ValueError: dark"


def test_files_in_tmp_become_artifacts_under_the_documented_key(runner: Runner) -> None:
    """Also those that a script writes to the literal /tmp."""
    name = f"literal-{os.getpid()}.txt"
    script = (
        "import os, tempfile\nfrom aws_synthetics.common import synthetics_logger as logger\ndef handler(event, context):\n"
        f" open('/tmp/{name}', 'w').write('here')\n os.mkdir(tempfile.gettempdir() + '/sub')\n"
        " open(tempfile.gettempdir() + '/sub/a.txt', 'w').write('a')\n logger.warning('mind %s', 'this')"
    )
    result = runner.script(script, canary_id="abc11111-2222-3333-4444-555555555555")
    folder = Path(result.artifact_location)
    stored = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name, "sub/a.txt", "SyntheticsReport-PASSED.json"} < stored
    assert not Path(f"/tmp/{name}").exists()
    assert "WARNING: mind this" in next(folder.glob("*-log.txt")).read_text()
    parts = folder.relative_to(runner.folder / "artifacts").parts
    assert parts[:3] == ("canary", "us-east-1", "tested-abc-555555555555")
    assert [len(part) for part in parts[3:]] == [4, 2, 2, 2, 9]  # YYYY MM DD HH MM-SS-mmm
    report = json.loads((folder / "SyntheticsReport-PASSED.json").read_text())
    assert report["customerScript"]["status"] == "PASSED"


def test_a_run_stores_its_artifacts_in_s3_and_publishes_its_metrics_in_its_own_region(runner: Runner, moto: str) -> None:
    session = {"endpoint_url": moto, "region_name": "us-east-1", "aws_access_key_id": "AKIATEST", "aws_secret_access_key": "test"}
    s3, cloudwatch = boto3.client("s3", **session), boto3.client("cloudwatch", **session)
    s3.create_bucket(Bucket="runs")
    result = runner.script(STEPS, artifacts="s3://runs/mine", credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": moto})
    prefix = result.artifact_location.removeprefix("runs/")
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="runs", Prefix=prefix)["Contents"]]
    assert f"{prefix}/SyntheticsReport-FAILED.json" in keys
    assert prefix.startswith("mine/canary/us-east-1/tested/")
    metrics = cloudwatch.list_metrics(Namespace="CloudWatchSynthetics")["Metrics"]
    found = {(each["MetricName"], *sorted((d["Name"], d["Value"]) for d in each["Dimensions"])) for each in metrics}
    canary = ("CanaryName", "tested")
    assert {
        ("SuccessPercent",),
        ("SuccessPercent", canary),
        ("Duration",),
        ("Duration", canary),
        ("Failed",),
        ("Failed", canary),
        ("SuccessPercent", canary, ("StepName", "two")),
        ("Duration", canary, ("StepName", "three")),
        ("EphemeralStorageUsagePercent", canary),
    } <= found
    assert not {name for name, *_ in found} & {"RetryCount", "SuccessPercentWithRetries"}
    assert result.published == 13


def test_step_metrics_can_be_switched_off(runner: Runner, moto: str) -> None:
    script = STEPS.replace(
        "async def handler(event, context):", "async def handler(event, context):\n    synthetics_configuration.disable_step_metrics()"
    )
    assert runner.script(script, credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": moto}).published == 7


RETRIES = ("RetryCount", "SuccessPercentWithRetries")


def of_retries(recorder: Recorder) -> list[tuple[str, float]]:
    """The datapoints about retries, in order; each by CanaryName alone."""
    found = [each for each in recorder.data if each["MetricName"] in RETRIES]
    assert all(each["Dimensions"] == [{"Name": "CanaryName", "Value": "tested"}] for each in found)
    return [(each["MetricName"], each["Value"]) for each in found]


def test_retries_are_counted_and_the_last_attempt_decides(runner: Runner, aws: tuple[Recorder, Recorder]) -> None:
    """A first attempt that fails says nothing of the run; a run that needed no retry has no RetryCount."""
    role = {**CREDENTIALS, "AWS_ENDPOINT_URL": aws[0].url}
    good, bad = PASSING["sync"], FAILING["raises"][0]
    runner.script(good, credentials=role, max_retries=2)
    assert of_retries(aws[0]) == [("SuccessPercentWithRetries", 100.0)]
    runner.script(bad, credentials=role, max_retries=2)
    assert of_retries(aws[0])[1:] == []
    runner.script(bad, credentials=role, max_retries=2, retry_attempt=1)
    assert of_retries(aws[0])[1:] == [("RetryCount", 1.0)]
    runner.script(bad, credentials=role, max_retries=2, retry_attempt=2)
    assert of_retries(aws[0])[2:] == [("RetryCount", 1.0), ("SuccessPercentWithRetries", 0.0)]


def test_success_with_retries_without_any_retries_is_an_option(runner: Runner, aws: tuple[Recorder, Recorder]) -> None:
    """AWS's page does not say whether a canary without retries has the metric."""
    role = {**CREDENTIALS, "AWS_ENDPOINT_URL": aws[0].url}
    runner.script(PASSING["sync"], credentials=role)
    assert of_retries(aws[0]) == []
    runner.script(PASSING["sync"], credentials=role, success_with_retries="always")
    assert of_retries(aws[0]) == [("SuccessPercentWithRetries", 100.0)]


def test_the_most_of_tmp_in_use_is_published(runner: Runner, aws: tuple[Recorder, Recorder]) -> None:
    """The peak counts, not what is left at the end."""
    script = (
        "import os, tempfile, time\ndef handler(event, context):\n path = tempfile.gettempdir() + '/big'\n"
        " with open(path, 'wb') as f: f.write(b'x' * (256 << 20))\n time.sleep(1)\n os.remove(path)"
    )
    role = {**CREDENTIALS, "AWS_ENDPOINT_URL": aws[0].url}
    runner.script(script, credentials=role)
    runner.script(PASSING["sync"], credentials=role, storage_metric=False)
    [seen] = [each["Value"] for each in aws[0].data if each["MetricName"] == "EphemeralStorageUsagePercent"]
    assert 25 <= seen < 26


def test_the_command_tries_a_failed_run_again(runner: Runner, tmp_path: Path) -> None:
    path = bundle(runner.folder, {"python/canary.py": "def handler(event, context): assert event['retryAttempt'] == 1"})
    command = [sys.executable, "-m", "canaries.runtime", str(path), "--handler", "canary.handler", "--artifacts", str(tmp_path), "--json"]
    done = subprocess.run([*command, "--retries", "2"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert [json.loads(line)["state"] for line in done.stdout.splitlines()] == ["FAILED", "PASSED"]
    assert done.returncode == 0
    assert subprocess.run([*command, "--retries", "3"], cwd=ROOT, capture_output=True, timeout=60, check=False).returncode == 2


def test_a_dry_run_publishes_under_its_own_names(runner: Runner, moto: str) -> None:
    result = runner.script(PASSING["sync"], dry_run=True, canary="dry", credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": moto})
    assert result.published == 2


def test_artifacts_that_cannot_be_saved_fail_the_run_and_not_the_test(runner: Runner, moto: str) -> None:
    result = runner.script(PASSING["sync"], artifacts="s3://no-such-bucket/x", credentials={**CREDENTIALS, "AWS_ENDPOINT_URL": moto})
    assert (result.test_result, result.state_reason_code) == (Outcome.PASSED, ReasonCode.EXECUTION_FAILURE)
    assert "Unable to save artifacts" in result.state_reason
    assert "NoSuchBucket" in result.state_reason


def test_a_step_that_is_not_awaited_is_warned_of(runner: Runner) -> None:
    result = runner.script(
        "from aws_synthetics.selenium import synthetics_webdriver\n"
        "def handler(event, context): synthetics_webdriver.execute_step('forgotten', lambda: None)"
    )
    assert result.steps == ()
    assert any("was never awaited" in line.message for line in result.log)


# ---------------------------------------------------------------------- time


def test_lab_time_moves_time_and_sleep_and_nothing_else(runner: Runner) -> None:
    now = time.time()
    script = (
        "import time, datetime\ndef handler(event, context):\n"
        " lab, mono, wall = time.time(), time.monotonic(), datetime.datetime.now().timestamp()\n time.sleep(5)\n"
        " return [time.time() - lab, time.monotonic() - mono, lab - wall]"
    )
    result = runner.script(script, lab_clock=f"{now!r},{now + 7200!r},20", timeout_s=60)
    line = next(line.message for line in result.log if "response" in line.message)
    lab, monotonic, ahead = json.loads(line.split("response ")[1])
    assert 5 <= lab < 12
    assert 0.25 <= monotonic < 0.6
    assert ahead == pytest.approx(7200, abs=60)
    assert result.started > now + 7000


def test_a_timeout_is_in_lab_seconds(runner: Runner) -> None:
    now = time.time()
    result = runner.script(ENDING["hangs"][0].replace("60", "6000"), lab_clock=f"{now!r},{now + 7200!r},20", timeout_s=20)
    assert "Task timed out after 20.00 seconds" in result.state_reason
    assert 20 <= result.ended - result.started < 150  # a fast lab gives a slow machine a little more


def test_a_skewed_clock_is_a_fault_that_can_be_given(runner: Runner) -> None:
    result = runner.script("import time\ndef handler(e, c): return time.time()", environment={"CROSSWATCH_CLOCK_SKEW_S": "-300"})
    line = next(line.message for line in result.log if "response" in line.message)
    assert float(line.rsplit(maxsplit=1)[1]) == pytest.approx(time.time() - 300, abs=20)


# ---------------------------------------------------------------------- command line


def test_the_command_line_runs_a_bundle_without_any_aws(tmp_path: Path) -> None:
    path = bundle(tmp_path, {"python/canary.py": "def handler(event, context): print('hello')"})
    done = _command(tmp_path, str(path), "--handler", "canary.handler")
    assert (done.returncode, "PASSED in" in done.stdout, "hello" in done.stdout) == (0, True, True)
    assert next((tmp_path / "canary-artifacts").rglob("SyntheticsReport-PASSED.json")).is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["bundle.zip", "--handler", "other.handler"], 1, "handler other.handler needs python/other.py in bundle.zip"),
        (["bundle.zip", "--handler", "canary"], 2, "at 'code.handler' failed"),
        (["nothing.zip", "--handler", "canary.handler"], 2, "nothing.zip: no such file"),
    ],
)
def test_the_command_line_says_what_to_mend(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    bundle(tmp_path, {"python/canary.py": "def handler(event, context): pass"})
    done = _command(tmp_path, *arguments)
    assert (done.returncode, text in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def _command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "canaries.runtime", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_a_bundle_that_unpacks_to_more_than_lambda_takes_is_refused(runner: Runner) -> None:
    path = runner.folder / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(26):
            archive.writestr(f"python/{number}.bin", bytes(10 << 20))
    assert "Unzipped size must be smaller than" in runner.sandbox.run(runner.request(path, "canary.handler")).state_reason
