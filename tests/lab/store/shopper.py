"""A shopper for tests: the store's pages through one Region's load balancer, over TLS, with the lab's authority."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from tests.lab.rig import Rig

WATCH = "a0a4f044-b040-410d-8ead-4de0446aec7e"
ADDRESS = {
    "firstName": "Ada",
    "lastName": "L",
    "email": "ada@retail.test",
    "address1": "1 Main St",
    "city": "Portland",
    "state": "OR",
    "zip": "97201",
}
MARK = {"baggage": "crosswatch.synthetic=true"}


class _ByAddress(requests.adapters.HTTPAdapter):
    """Connects to a loopback address and checks the certificate for the store's name."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, assert_hostname="store.retail.test")


class Shopper:
    """One session with one Region's store."""

    def __init__(self, lab: Rig, region: str) -> None:
        here = lab.plan.regions[region]
        self.url = f"https://{here.ip}:{lab.plan.alb_port}"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(lab.plan.ca_file)
        self.session.mount("https://", _ByAddress())

    def get(self, path: str, **arguments: Any) -> requests.Response:
        """GET a page."""
        return self.session.get(self.url + path, timeout=15, **arguments)

    def post(self, path: str, **arguments: Any) -> requests.Response:
        """POST a form."""
        return self.session.post(self.url + path, timeout=15, allow_redirects=False, **arguments)

    def delete(self, path: str) -> requests.Response:
        """DELETE something."""
        return self.session.delete(self.url + path, timeout=15)

    def buy(self, **headers: str) -> str:
        """A whole purchase; returns the order's id as the last page shows it."""
        assert self.post("/cart", data={"productId": WATCH}).status_code == 303
        assert self.get("/checkout").status_code == 200
        assert "priority-mail" in self.post("/checkout", data=ADDRESS).text
        assert self.post("/checkout/delivery", data={"token": "priority-mail"}).status_code == 200
        assert self.post("/checkout/payment").status_code == 200
        page = self.post("/checkout/confirm", headers=headers)
        assert page.status_code == 200, page.text
        found = re.search(r'data-order-id="([0-9a-f-]{36})"', page.text)
        assert found
        return found[1]
