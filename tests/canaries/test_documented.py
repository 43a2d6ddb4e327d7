"""All three bundles under a second fake of the library, which has what is documented and no more: they talk to nothing else."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from canaries import bundle
from tests.canaries.servers import answering, page, raw_server
from tests.canaries.shop_server import REGIONS, Shop, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from canaries.bundle import Kind

FAKE = Path(__file__).with_name("documented.py")
INTERPRETERS = [sys.executable, *map(str, (Path.home() / ".pyenv/versions").glob("3.12*/bin/python3.12"))]
AGENT = "CloudWatchSynthetics/arn:aws:synthetics:us-east-1:123456789012:canary:fake"
pytestmark = pytest.mark.slow


@dataclass
class Outside:
    """Runs bundles as somebody does who has only AWS's documentation."""

    folder: Path

    def run(self, kind: Kind, config: dict[str, Any], interpreter: str = sys.executable, *, raises: bool = False) -> dict[str, Any]:
        """One run; what the fake says of it."""
        built = bundle.build(kind, config)
        with zipfile.ZipFile(io.BytesIO(built.data)) as archive:
            archive.extractall(self.folder / "opt")
        packages = str(next(Path(path) for path in sys.path if (Path(path) / "boto3").is_dir()))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_REGION": "us-east-1",
        }
        command = [interpreter, "-I", "-S", str(FAKE), str(self.folder / "opt"), kind, str(int(raises)), packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**summary, "log": done.stdout}


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path)


@pytest.fixture
def store() -> Iterator[Shop]:
    with shop() as served:
        yield served


def common(store: Shop, **changes: Any) -> dict[str, Any]:
    """A configuration for the store."""
    urls = {region: f"http://{host}:{store.ports[region]}" for region, host in zip(REGIONS, ("127.0.0.1", "127.0.0.2"), strict=True)}
    targets = [{"name": f"alb-{region}", "url": url, "region": region} for region, url in urls.items()]
    name = {"name": "name", "url": urls[REGIONS[0]]}
    return {"workload": "retail", "vantage": REGIONS[0], "targets": [*targets, name], "traces": False, **changes}


def ledger(store: Shop, **changes: Any) -> dict[str, Any]:
    return common(store, write_to={"us-east-1": "http://127.0.0.1:1"}, read_within_s=2.0, **changes)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_same_probe_passes(interpreter: str, outside: Outside) -> None:
    """Also with another Python, where one is installed; without a context that knows the time, its own plan ends it."""
    with raw_server(answering(page("Retail Store us-east-1"))) as port:
        url = f"http://127.0.0.1:{port}"
        config = {
            "workload": "retail",
            "vantage": "us-east-1",
            "targets": [{"name": "alb-us-east-1", "url": url, "region": "us-east-1"}, {"name": "name", "url": url}],
            "pages": [{"name": "home", "path": "/home", "body": "Retail Store"}],
            "write_to": {"us-east-1": "http://127.0.0.1:1"},
            "rounds": {"every_s": 1.0, "offset_s": 0.0, "until_s": 2.0, "retry_after_s": 0.5},
            "trace_to": "http://127.0.0.1:1",
        }
        done = outside.run("probe", config, interpreter)
    assert (done["problem"], done["steps"], done["failures"]) == (None, ["alb-us-east-1 home", "name home"], [])
    assert done["result"]["rounds"] >= 2
    assert "WARNING The run's segment could not be sent: EndpointConnectionError" in done["log"]


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_same_ledger_passes(interpreter: str, outside: Outside, store: Shop) -> None:
    """There is no bucket: the book lives as long as the process. Who asks is made up from what the invocation says."""
    done = outside.run("ledger", ledger(store), interpreter)
    assert (done["problem"], done["failures"]) == (None, [])
    assert done["steps"] == ["place orders", "orders arrive", "orders are kept", "clean up"]
    assert (done["result"]["placed"], done["result"]["open"]) == (1, 1)
    assert {each["user-agent"] for each in store.seen} == {AGENT}


def test_every_step_is_taken_where_the_library_does_not_go_on_by_itself(outside: Outside, store: Shop) -> None:
    """The run fails all the same, once everything is done and said."""
    store.broken["POST /checkout/payment"] = 500
    done = outside.run("ledger", ledger(store), raises=True)
    assert done["steps"] == ["place orders", "orders arrive", "orders are kept", "clean up"]
    assert len(done["failures"]) == 1
    assert done["problem"].startswith("LedgerError: payment: POST /checkout/payment")
    assert '{"crosswatch":"ledger"' in done["log"]


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromedriver") is None, reason="Chromium is not installed (Debian: chromium, chromium-driver)")
class TestInChromium:
    def test_the_same_journey_passes_and_its_order_is_removed(self, outside: Outside, store: Shop) -> None:
        """The browser's log cannot be read, as when the browser is gone: that hides nothing and keeps nothing from being done."""
        done = outside.run("journey", common(store, step_s=5.0), raises=True)
        assert (done["problem"], done["failures"], done["errors"], len(done["steps"])) == (None, [], [], 8)
        assert store.deletes == [done["result"]["order"]]
        assert "the console could not be read: WebDriverException" in done["log"]

    def test_an_order_that_cannot_be_removed_is_an_error_with_its_cause(self, outside: Outside, store: Shop) -> None:
        store.refuse_deletes = True
        [error] = outside.run("journey", common(store, step_s=5.0), raises=True)["errors"]
        assert "could not be deleted: status in ttfb: 500" in error
        assert error.endswith("(JourneyError)")

    def test_an_order_without_a_number_is_named(self, outside: Outside, store: Shop) -> None:
        """It was taken, and the page that thanks for it does not say which it is."""
        store.confirm = "page"
        done = outside.run("journey", common(store, step_s=2.0), raises=True)
        assert "an order number did not appear within 2 s" in done["problem"]
        assert "showed no number: placed, fate unknown (journey@crosswatch.invalid, trace 1-" in done["errors"][0]
        assert store.deletes == []
