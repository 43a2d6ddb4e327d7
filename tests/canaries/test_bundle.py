"""Bundles: the same bytes for the same input, small, complete, for Python 3.11 and 3.12, and content with a second fake of the library."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import topology
from canaries import bundle
from canaries.bundle import KINDS, Kind
from canaries.config import canary_config
from canaries.runtime.layer.aws_synthetics.wrapper.packages import LAMBDA, LAYER
from tests.canaries.servers import answering, page, raw_server

ROOT = Path(__file__).parents[2]
EXAMPLE = topology.load(ROOT / "topology.yaml")
INTERPRETERS = [sys.executable, *map(str, (Path.home() / ".pyenv/versions").glob("3.12*/bin/python3.12"))]


def names_of(built: bundle.Bundle) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(built.data)) as archive:
        return archive.namelist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_bytes_whatever_the_clock_and_umask(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    config = canary_config(kind, EXAMPLE, "us-east-1")
    first = bundle.build(kind, config)
    monkeypatch.setattr("time.time", lambda: 0.0)
    before = os.umask(0o077)
    try:
        second = bundle.build(kind, dict(reversed(config.items())))
    finally:
        os.umask(before)
    assert first == second
    assert first.handler == f"{kind}.handler"
    assert first.sha256[:16] in first.file_name


@pytest.mark.parametrize("kind", KINDS)
def test_another_configuration_is_another_bundle(kind: Kind) -> None:
    east, west = (bundle.build(kind, canary_config(kind, EXAMPLE, region)) for region in ("us-east-1", "us-west-2"))
    assert east.sha256 != west.sha256
    assert east.files == west.files


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_is_small_and_everything_is_below_python(kind: Kind) -> None:
    built = bundle.build(kind, canary_config(kind, EXAMPLE, "us-east-1"))
    names = names_of(built)
    assert len(built.data) < 2_000_000
    assert names == sorted(names)
    assert all(name.startswith("python/") for name in names)
    assert {f"python/{kind}.py", "python/config.json", "python/dns/LICENSE"} < set(names)
    assert built.vendored == {"dnspython": bundle.PINNED["dnspython"]}
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.parametrize("kind", KINDS)
def test_our_modules_import_only_what_lambda_the_layer_and_the_bundle_have(kind: Kind) -> None:
    built = bundle.build(kind, canary_config(kind, EXAMPLE, "us-east-1"))
    allowed = LAMBDA | LAYER | {"aws_synthetics", "canaries", "dns"} | set(sys.stdlib_module_names)
    with zipfile.ZipFile(io.BytesIO(built.data)) as archive:
        for name in archive.namelist():
            if name.startswith("python/canaries/"):
                tree = ast.parse(archive.read(name), feature_version=(3, 11))
                imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
                imports |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
                assert {each.split(".")[0] for each in imports} <= allowed, name
                ours = {each for each in imports if each.startswith("canaries.")}
                assert {each.split(".")[1] for each in ours} <= {"shared", kind}, name


def test_another_version_of_a_vendored_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bundle.PINNED, "dnspython", "2.0.0")
    with pytest.raises(bundle.BundleError, match=r"the bundle pins 2\.0\.0; pip install dnspython==2\.0\.0"):
        bundle.build("probe", {})


def test_the_pinned_version_is_the_projects() -> None:
    assert f'"dnspython=={bundle.PINNED["dnspython"]}"' in (ROOT / "pyproject.toml").read_text()


SECOND_FAKE = '''
"""A second fake of the documented library, written apart from the runtime's: modules made by hand, steps in a list."""
import asyncio, importlib, inspect, json, sys, types

steps, failures = [], []

class Configuration:
    def set_config(self, options): return self
    def __getattr__(self, name):
        if name.startswith(("with_", "disable_", "enable_")):
            return lambda *_: self
        raise AttributeError(name)

async def execute_step(name, function):
    steps.append(name)
    try:
        result = function()
        return await result if inspect.isawaitable(result) else result
    except Exception as error:
        failures.append(f"{name}: {error}")

def say(level):
    return lambda message, *args, **kwargs: print(level, message % args if args else message)

common, selenium = types.ModuleType("aws_synthetics.common"), types.ModuleType("aws_synthetics.selenium")
common.synthetics_configuration = Configuration()
common.synthetics_logger = types.SimpleNamespace(**{n: say(n.upper()) for n in ("debug", "info", "warning", "error", "exception")})
selenium.synthetics_webdriver = types.SimpleNamespace(
    execute_step=execute_step, get_canary_user_agent_string=lambda: "CloudWatchSynthetics/fake", add_execution_error=print, Chrome=None)
sys.modules["aws_synthetics"] = types.ModuleType("aws_synthetics")
sys.modules["aws_synthetics.common"], sys.modules["aws_synthetics.selenium"] = common, selenium

class Context:
    aws_request_id = "1"
    def get_remaining_time_in_millis(self): return 30000

root, module = sys.argv[1:3]
sys.path[:0] = [f"{root}/python"] + sys.argv[3:]
handler = importlib.import_module(module).handler
result = handler({"canaryName": "fake", "artifactS3Location": {"s3Bucket": "", "s3Key": ""}}, Context())
result = asyncio.run(result) if inspect.isawaitable(result) else result
print(json.dumps({"result": result, "steps": steps, "failures": failures}))
'''


@pytest.mark.slow
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_same_probe_passes_under_a_second_fake_of_the_library(interpreter: str, tmp_path: Path) -> None:
    """Also with another Python, where one is installed."""
    with raw_server(answering(page("Retail Store us-east-1"))) as port:
        url = f"http://127.0.0.1:{port}"
        config = {
            "workload": "retail",
            "vantage": "us-east-1",
            "targets": [{"name": "alb-us-east-1", "url": url, "region": "us-east-1"}, {"name": "name", "url": url}],
            "pages": [{"name": "home", "path": "/home", "body": "Retail Store"}],
            "write_to": {"us-east-1": "http://127.0.0.1:1"},
            "rounds": {"every_s": 1.0, "offset_s": 0.0, "until_s": 2.0, "retry_after_s": 0.5},
            "traces": False,
        }
        built = bundle.build("probe", config)
        with zipfile.ZipFile(io.BytesIO(built.data)) as archive:
            archive.extractall(tmp_path / "opt")
        (tmp_path / "fake.py").write_text(SECOND_FAKE)
        packages = str(next(Path(path) for path in sys.path if (Path(path) / "boto3").is_dir()))
        environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
        command = [interpreter, "-I", "-S", str(tmp_path / "fake.py"), str(tmp_path / "opt"), "probe", packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["steps"], summary["failures"]) == (["alb-us-east-1 home", "name home"], [])
    assert summary["result"]["rounds"] >= 2


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_a_bundle_compiles(kind: Kind, interpreter: str, tmp_path: Path) -> None:
    built = bundle.build(kind, canary_config(kind, EXAMPLE, "us-east-1"))
    with zipfile.ZipFile(io.BytesIO(built.data)) as archive:
        archive.extractall(tmp_path)
    done = subprocess.run(
        [interpreter, "-I", "-W", "error", "-m", "compileall", "-q", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
