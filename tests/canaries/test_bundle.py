"""Bundles: the same bytes for the same input, small, complete, and for Python 3.11 and 3.12."""

from __future__ import annotations

import ast
import io
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
    with zipfile.ZipFile(io.BytesIO(built.data)) as archive:
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}, "what zlib makes depends on its build"
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
