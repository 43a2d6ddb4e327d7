"""The store as its customers and canaries see it, in two Regions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

from lab import admin
from tests.lab.rig import wait_for
from tests.lab.store.shopper import ADDRESS, MARK, WATCH, Shopper

if TYPE_CHECKING:
    from tests.lab.rig import Rig

pytestmark = pytest.mark.slow
JSON = {"Accept": "application/json"}


def task(shop: Rig, region: str, service: str) -> dict[str, Any]:
    """The one task of a service."""
    found: dict[str, Any] = admin.call(shop.plan.regions[region].ecs_port, "GET", "/status")[service]["tasks"][0]
    return found


def chaos(shop: Rig, method: str, path: str, region: str = "us-west-2", service: str = "catalog", body: bytes = b"") -> None:
    """Switch a fault of a service on or off."""
    port = task(shop, region, service)["port"]
    requests.request(method, f"http://127.0.0.1:{port}/chaos{path}", data=body, timeout=5).raise_for_status()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/home", "Retail Store"),
        ("/catalog", "Catalog"),
        ("/catalog?tag=dress&page=1&size=2", "Night Ferry"),
        (f"/catalog/{WATCH}", "Night Ferry"),
        ("/cart", "Cart"),
        ("/orders", "Orders"),
        ("/orders?email=nobody@x.y&size=1", "No orders yet"),
    ],
)
def test_every_page_is_served_and_says_from_where(west: Shopper, path: str, text: str) -> None:
    """Region in the page and in the header, and a session cookie."""
    page = west.get(path)
    assert page.status_code == 200
    assert text in page.text
    assert 'data-region="us-west-2"' in page.text
    assert page.headers["X-Retail-Store-Metadata"].startswith("region=us-west-2; task=")
    assert west.session.cookies["SESSIONID"]


def test_the_root_leads_home_and_what_is_not_there_is_404(west: Shopper) -> None:
    """With the store's own page."""
    assert west.get("/", allow_redirects=False).headers["Location"] == "/home"
    for path in ("/nowhere", "/catalog/00000000-0000-0000-0000-000000000000", "/catalog/x", "/orders/x"):
        page = west.get(path)
        assert page.status_code == 404
        assert "Back to the shop" in page.text


def test_the_pages_pictures_and_styles_exist(west: Shopper) -> None:
    """Everything that the catalogue refers to is served."""
    import re

    page = west.get("/catalog?size=50").text
    assets = set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', page))
    assert len(assets) >= 8
    for asset in assets:
        assert west.get(asset).status_code == 200, asset


def test_a_purchase_is_read_back_in_both_regions(shop: Rig, west: Shopper) -> None:
    """It is written to the writer in us-east-1, replicated, listed, published and consumed."""
    identity = west.buy()
    east = Shopper(shop, "us-east-1")
    seen = wait_for(
        "the order in us-east-1", lambda: (page := east.get(f"/orders/{identity}", headers=JSON)).status_code == 200 and page.json()
    )
    assert seen["region"] == "us-west-2"
    assert seen["synthetic"] is False
    assert seen["items"][0]["productId"] == WATCH
    assert identity in west.get("/orders?email=ada@retail.test").text
    log = shop.plan.logs / "us-west-2-orders.log"
    wait_for("the order's event", lambda: f"Order {identity} goes to the warehouse" in log.read_text())
    assert f"Created Order: {identity}" in log.read_text()
    assert "Your cart is empty" in west.get("/cart").text
    assert west.delete(f"/orders/{identity}").status_code == 403


@pytest.mark.parametrize("mark", [MARK, {"X-Crosswatch-Synthetic": "true"}])
def test_a_canarys_order_is_marked_hidden_and_can_be_deleted(shop: Rig, west: Shopper, mark: dict[str, str]) -> None:
    """It never counts as a customer's: not in the list, another log line; deleted once, then gone."""
    identity = west.buy(**mark)
    order = wait_for("the order", lambda: (page := west.get(f"/orders/{identity}", headers=JSON)).status_code == 200 and page.json())
    assert order["synthetic"] is True
    assert identity not in west.get("/orders?size=100").text
    log = (shop.plan.logs / "us-west-2-orders.log").read_text()
    assert f"Created Synthetic Order: {identity}" in log
    assert f"Created Order: {identity}" not in log
    assert west.delete(f"/orders/{identity}").status_code == 204
    assert west.delete(f"/orders/{identity}").status_code == 404


def test_a_form_with_mistakes_is_shown_again_with_status_200(west: Shopper) -> None:
    """So that a canary has to look at the body."""
    west.post("/cart", data={"productId": WATCH})
    west.get("/checkout")
    page = west.post("/checkout", data=ADDRESS | {"zip": "nine", "state": "Oregon"})
    assert page.status_code == 200
    assert page.text.count("Please look at this again") == 2
    assert west.post("/cart/remove", data={"productId": WATCH}).status_code == 303
    assert "Your cart is empty" in west.get("/cart").text


def test_faults_of_a_service_show_in_the_pages_and_heal(shop: Rig, west: Shopper) -> None:
    """A status, a wrong body and a latency, each undone."""
    chaos(shop, "POST", "/status/503")
    page = west.get("/catalog")
    assert page.status_code == 500
    assert "We cannot reach our catalog" in page.text
    chaos(shop, "DELETE", "/status/503")
    chaos(shop, "POST", "/body", service="ui", body=b"<html>hello</html>")
    assert west.get("/home").text == "<html>hello</html>"
    chaos(shop, "DELETE", "/body", service="ui")
    chaos(shop, "POST", "/latency/400")
    assert west.get(f"/catalog/{WATCH}").elapsed.total_seconds() > 0.4
    chaos(shop, "DELETE", "")
    assert west.get("/catalog").status_code == 200


def test_a_crashed_task_is_replaced(shop: Rig, west: Shopper) -> None:
    """Pages fail at most for a moment, and another task serves them."""
    here = shop.plan.regions["us-west-2"]
    before = task(shop, "us-west-2", "carts")["id"]
    admin.call(here.ecs_port, "DELETE", f"/tasks/{before}?how=kill")
    wait_for("another task", lambda: (now := task(shop, "us-west-2", "carts"))["id"] != before and now["state"] == "RUNNING", 40)
    wait_for("the cart", lambda: west.get("/cart").status_code == 200)
    events = [text for _, text in admin.call(here.ecs_port, "GET", "/status")["carts"]["events"]]
    assert any(f"task {before} stopped with exit code 137" in text for text in events)


def test_a_bad_deployment_reaches_one_region_only_and_is_rolled_back(shop: Rig, west: Shopper) -> None:
    """The new revision takes over when it runs, with its defect; rolling back heals; us-east-1 never noticed."""
    here = shop.plan.regions["us-west-2"]
    admin.call(here.ecs_port, "POST", "/services/catalog/deploy", {"environment": {"RETAIL_DEFECT": "status/500"}})
    wait_for("the defect", lambda: west.get("/catalog").status_code == 500, 40)
    assert Shopper(shop, "us-east-1").get("/catalog").status_code == 200
    admin.call(here.ecs_port, "POST", "/services/catalog/rollback")
    wait_for("the roll-back", lambda: west.get("/catalog").status_code == 200, 40)
    wait_for("one revision", lambda: not admin.call(here.ecs_port, "GET", "/status")["catalog"]["deploying"], 40)


def test_scaling_to_none_empties_the_target_group_and_back(shop: Rig, west: Shopper) -> None:
    """The load balancer answers 503 itself, DNS hears that nothing is healthy, and one task more serves again."""
    here = shop.plan.regions["us-west-2"]
    admin.call(here.ecs_port, "POST", "/services/ui/scale", {"desired": 0})
    wait_for("503", lambda: west.get("/home").status_code == 503, 20)
    assert admin.call(here.alb_admin_port, "GET", "/health") == {"targets": 0, "healthy": 0}
    admin.call(here.ecs_port, "POST", "/services/ui/scale", {"desired": 1})
    wait_for("the page", lambda: west.get("/home").status_code == 200, 40)


def test_service_connect_measures_what_goes_through_it(shop: Rig, west: Shopper) -> None:
    """Requests by what was called, and by who called; response times in milliseconds; 5xx with a fault."""
    here = shop.plan.regions["us-west-2"]
    admin.call(here.connect_admin_port, "POST", "/window")
    chaos(shop, "POST", "/status/500", service="orders")
    west.get("/orders")
    west.get("/home")
    chaos(shop, "DELETE", "/status", service="orders")
    window = {
        (datum["metric"], *sorted(datum["dimensions"].items())): datum for datum in admin.call(here.connect_admin_port, "POST", "/window")
    }
    assert window["RequestCount", ("DiscoveryName", "catalog")]["values"] == [2]
    assert window["HTTPCode_Target_5XX_Count", ("TargetDiscoveryName", "orders")]["values"] == [1]
    times = window["TargetResponseTime", ("ClusterName", "retail"), ("ServiceName", "ui"), ("TargetDiscoveryName", "catalog")]
    assert times["unit"] == "Milliseconds"
    assert all(0 < value < 5000 for value in times["values"])


def test_ecs_reports_usage_only_of_what_runs(shop: Rig) -> None:
    """Counts exist for every service, utilisation for those with a running task."""
    data = admin.call(shop.plan.regions["us-east-1"].ecs_port, "POST", "/window")
    running = {datum["dimensions"]["ServiceName"]: datum["values"] for datum in data if datum["metric"] == "RunningTaskCount"}
    assert running == {service: [1.0] for service in ("ui", "catalog", "carts", "checkout", "orders")}
    memory = [datum for datum in data if datum["metric"] == "MemoryUtilization"]
    assert len(memory) == 5
    assert all(datum["unit"] == "Percent" and 3 < datum["values"][0] < 100 for datum in memory)


def test_shoppers_buy_and_keep_a_journal_of_what_was_acknowledged(shop: Rig) -> None:
    """Every line of the journal is an order that the store knows."""
    import json

    port = shop.plan.traffic_port
    admin.call(port, "PUT", "/load", {"peak_per_min": 12, "follow_day": False, "to": "alb", "buy_share": 1.0})
    status = wait_for("orders", lambda: (now := admin.call(port, "GET", "/status"))["regions"]["us-east-1"]["orders"] >= 2 and now, 40)
    admin.call(port, "PUT", "/load", {"peak_per_min": 0})
    assert not status["regions"]["us-east-1"]["failures"]
    journal = [json.loads(line) for line in (shop.path / "traffic-orders.jsonl").read_text().splitlines()]
    east = Shopper(shop, "us-east-1")
    assert all(east.get(f"/orders/{line['orderId']}", headers=JSON).status_code == 200 for line in journal if line["from"] == "us-east-1")
    with pytest.raises(admin.Refusal, match="buy_share"):
        admin.call(port, "PUT", "/load", {"buy_share": 7})
