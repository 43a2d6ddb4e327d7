"""The journey in real Chromium: a good run, and what it says when the store is not good."""

from __future__ import annotations

import json
import re
import shutil
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from canaries.bundle import build
from canaries.journey.browser import certificate, public_key_pin
from canaries.journey.settings import JourneySettings
from canaries.runtime import RunRequest, Sandbox
from canaries.shared.settings import encode
from canaries.shared.target import Target
from tests.canaries.shop_server import Shop, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

    from canaries.runtime import RunResult
    from tests.canaries.servers import Zone

EAST = "us-east-1"
STEPS = ["home", "catalog", "product", "cart", "checkout", "delivery", "payment", "order"]
browser = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="Chromium is not installed (Debian: chromium, chromium-driver)"),
]


@dataclass
class Walk:
    """A journey canary at a shop."""

    store: Shop
    folder: Path
    sandbox: Sandbox
    resolver: str | None = None
    ca: str | None = None
    scheme: str = "http"
    logs: list[str] = field(default_factory=list)

    def run(self, **changes: Any) -> RunResult:
        host = "store.retail.test" if self.resolver else "127.0.0.1"
        config = JourneySettings(
            workload="retail",
            vantage=EAST,
            targets=(Target("name", f"{self.scheme}://{host}:{self.store.ports[EAST]}"),),
            resolver=self.resolver,
            ca=self.ca,
            step_s=3.0,
            traces=False,
        )
        built = build("journey", {**encode(config), **changes})
        path = self.folder / "journey.zip"
        path.write_bytes(built.data)
        self.logs.clear()
        return self.sandbox.run(
            RunRequest(
                canary="retail-journey",
                handler=built.handler,
                bundle=path,
                region=EAST,
                artifacts=str(self.folder / "artifacts"),
                memory_mb=1024,
                timeout_s=90,
                log=lambda each: self.logs.append(each.message),
            )
        )

    def record(self, result: RunResult) -> dict[str, Any]:
        """The run's journey.json."""
        found: dict[str, Any] = json.loads((Path(result.artifact_location) / "journey.json").read_text())
        return found


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    with shop() as store, Sandbox("journey") as sandbox:
        yield Walk(store, tmp_path, sandbox)


class TestInChromium:
    pytestmark = browser

    def test_a_shopper_gets_all_the_way_and_the_order_is_removed(self, walk: Walk) -> None:
        result = walk.run()
        assert result.passed, result.state_reason
        assert [step.name for step in result.steps] == STEPS
        record = walk.record(result)
        assert record["product"] == "Chronograf Classic"
        assert walk.store.deletes == [record["order"]]
        assert walk.store.orders[EAST] == {}
        pages = [each for each in walk.store.seen if not each["path"].startswith("/assets")]
        assert {each["x-crosswatch-synthetic"] for each in pages} == {"true"}
        assert all("CloudWatchSynthetics/arn:aws:synthetics" in each["user-agent"] for each in pages)
        assert {each["x-amzn-trace-id"].split(";")[0] for each in pages} == {f"Root={record['trace']}"}
        assert result.screenshots == ()
        assert record["console"] == [], "the site has no icon; that is nobody's trouble"
        kept = sorted(path.name.partition("Z-")[2] or path.name for path in Path(result.artifact_location).rglob("*") if path.is_file())
        assert kept == ["SyntheticsReport-PASSED.json", "journey.json", "log.txt"], "and nothing of Chromium's own"

    def test_a_page_that_is_broken_behind_a_200_fails_its_step_with_a_picture(self, walk: Walk) -> None:
        walk.store.broken["GET /catalog"] = 200
        result = walk.run()
        assert [step.name for step in result.steps if not step.passed] == ["catalog"]
        assert "a link to a product did not appear within 3 s" in result.state_reason
        assert "Something is broken" in result.state_reason
        assert result.screenshots == ("02-catalog-failed.png",)
        picture = (Path(result.artifact_location) / "02-catalog-failed.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 2000

    def test_a_checkout_that_fails_half_way_names_its_step_and_leaves_no_order(self, walk: Walk) -> None:
        walk.store.broken["POST /checkout/confirm"] = 500
        result = walk.run()
        assert [step.name for step in result.steps] == STEPS
        assert "an order number did not appear within 3 s" in result.state_reason
        assert "/checkout/confirm, which was answered 500, says: Catalog" in result.state_reason
        assert result.screenshots == ("08-order-failed.png",)
        record = walk.record(result)
        assert any("500" in each["message"] for each in record["console"]), "the failed request is recorded"

    def test_pictures_that_do_not_load_are_seen(self, walk: Walk) -> None:
        walk.store.picture = 404
        reason = walk.run().state_reason
        assert re.search(r"a picture does not load at http://127\.0\.0\.1:\d+/catalog: http://127\.0\.0\.1:\d+/assets/watch.svg$", reason)

    def test_script_errors_are_recorded_and_do_not_fail_a_shopper_who_gets_through(self, walk: Walk) -> None:
        walk.store.script = "throw new Error('blink')"
        result = walk.run()
        assert result.passed, result.state_reason
        assert any("blink" in each["message"] for each in walk.record(result)["console"])

    def test_an_order_that_cannot_be_removed_is_an_execution_error(self, walk: Walk) -> None:
        walk.store.refuse_deletes = True
        result = walk.run()
        assert (result.test_result, result.state_reason_code) == ("PASSED", "EXECUTION_FAILURE")
        assert "could not be deleted: status in ttfb: 500" in result.state_reason

    def test_a_store_with_its_own_name_and_authority(self, dns: tuple[Zone, str], authority: trustme.CA, tmp_path: Path) -> None:
        """The name comes from our resolver; its certificate is checked by us and then trusted by Chromium, that key alone."""
        zone, server = dns
        zone.names["store.retail.test"] = ["127.0.0.1"]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("store.retail.test").configure_cert(context)
        with shop(context) as store, Sandbox("journey") as sandbox:
            good = Walk(store, tmp_path, sandbox, server, authority.cert_pem.bytes().decode(), "https")
            assert good.run().passed
            bad = Walk(store, tmp_path, sandbox, server, _another_authority(), "https").run()
        assert "the store's certificate could not be checked" in bad.state_reason

    def test_a_store_that_is_gone_fails_at_home(self, walk: Walk) -> None:
        walk.store.broken[EAST] = 503
        result = walk.run()
        assert [step.name for step in result.steps] == ["home"]
        assert "Something is broken" in result.state_reason


def test_the_pin_of_a_certificate_is_chromiums(authority: trustme.CA) -> None:
    """Against an independent reading of the same certificate."""
    import base64
    import hashlib
    import socket
    import threading

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("store.retail.test").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: context.wrap_socket(listener.accept()[0], server_side=True).close())
        thread.start()
        target = Target("name", f"https://store.retail.test:{listener.getsockname()[1]}")
        der = certificate("127.0.0.1", target, authority.cert_pem.bytes().decode(), 2)
        thread.join()
    key = x509.load_der_x509_certificate(der).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key_pin(der) == base64.b64encode(hashlib.sha256(key).digest()).decode()


def _another_authority() -> str:
    import trustme

    return trustme.CA().cert_pem.bytes().decode()
