"""The store as a customer's HTTP client sees it: a cart, a checkout, an order; and the two requests that only canaries make.

Routes: the guidance's UI (``POST /cart``, ``/checkout``, ``/checkout/delivery``, ``/checkout/payment``, ``/checkout/confirm``). A store
that wants a ledger adds to it: confirm answers the order's id as JSON ``{"orderId"}`` to who accepts only that, ``GET /orders/{id}``
answers 200 or 404, and ``DELETE /orders/{id}`` removes an order that was placed with the synthetic mark (docs/canaries.md).
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from canaries.ledger.book import Seen
from canaries.shared import trace
from canaries.shared.exchange import Ask, Exchange, exchange

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from canaries.ledger.settings import LedgerSettings
    from canaries.shared.resolve import Answer
    from canaries.shared.target import Target

PRODUCT: Final = re.compile(r"/catalog/([0-9a-f]{8}-[0-9a-f-]{27})")
DELIVERY: Final = re.compile(r'name="token"\s+value="([A-Za-z0-9-]+)"')
ADDRESS: Final = {
    "firstName": "Synthetic",
    "lastName": "Ledger",
    "address1": "1 Canary Row",
    "address2": "",
    "city": "Nowhere",
    "state": "WA",
    "zip": "98101",
}


class ShopError(Exception):
    """The store did not do what it was asked; the text names the step and what it answered."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """An acknowledged order and the Region that took it, where it said so."""

    order_id: str
    region: str | None


@dataclass(slots=True)
class Shop:
    """Requests to the store under one trace."""

    settings: LedgerSettings
    resolve: Callable[[str, float], Answer]
    tls: ssl.SSLContext
    run: trace.TraceId
    user_agent: str

    def place(self) -> Receipt:
        """Place one order through the name, all of it in one Region, as a browser would. Raises ShopError."""
        target = self.settings.name
        answer = self._pin(target)
        session = {"Cookie": f"SESSIONID={uuid.uuid4()}"}
        products = PRODUCT.findall(self._step("catalog", target, answer, "GET", "/catalog", session).body)
        if not products:
            raise ShopError("catalog: no product is offered")
        self._step("cart", target, answer, "POST", "/cart", session, {"productId": products[0]}, 303)
        self._step("checkout", target, answer, "GET", "/checkout", session)
        delivery = self._step("address", target, answer, "POST", "/checkout", session, {**ADDRESS, "email": self.settings.email})
        rates = DELIVERY.findall(delivery.body)
        if not rates:
            raise ShopError("address: no delivery option is offered; the address was not accepted")
        self._step("delivery", target, answer, "POST", "/checkout/delivery", session, {"token": rates[0]})
        self._step("payment", target, answer, "POST", "/checkout/payment", session, {})
        done = self._step("confirm", target, answer, "POST", "/checkout/confirm", {**session, "Accept": "application/json"}, {})
        return Receipt(_order_id(done), _region(done, self.settings))

    def look(self, target: Target, order_id: str) -> Seen:
        """Whether a target has an order."""
        found = self._ask(target, self.resolve, "GET", f"/orders/{order_id}", {"Accept": "application/json"}, None)
        if found.failure is not None and found.status is None:
            return Seen.UNKNOWN
        return {200: Seen.HERE, 404: Seen.ABSENT}.get(found.status or 0, Seen.UNKNOWN)

    def delete(self, order_id: str) -> str | None:
        """Remove a synthetic order through the name; safe to repeat. Returns why it could not be done, None when it is gone."""
        result = self._ask(self.settings.name, self.resolve, "DELETE", f"/orders/{order_id}", {"Accept": "application/json"}, None)
        if result.status in (204, 404):
            return None
        return str(result.failure) if result.status is None else f"DELETE /orders/{order_id} was answered {result.status}"

    def _pin(self, target: Target) -> Callable[[str, float], Answer]:
        """Resolve once: a checkout that changes Region half-way would lose its session. Raises ShopError."""
        from canaries.shared.resolve import Answer, ResolveError

        try:
            answer = self.resolve(target.host, self.settings.limits.connect_s)
        except ResolveError as error:
            raise ShopError(f"dns: {error}") from error
        one = Answer(answer.addresses[:1], answer.ttl_s)
        return lambda _host, _timeout_s: one

    def _step(
        self,
        step: str,
        target: Target,
        resolve: Callable[[str, float], Answer],
        method: str,
        path: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Exchange:
        result = self._ask(target, resolve, method, path, headers, form, status)
        if result.failure is not None:
            raise ShopError(f"{step}: {method} {path}: {result.failure}")
        return result

    def _ask(
        self,
        target: Target,
        resolve: Callable[[str, float], Answer],
        method: str,
        path: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        status: int = 200,
    ) -> Exchange:
        ours = trace.headers(self.run, trace.span_id(), True, self.settings.vantage, self.user_agent)
        typed = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        ask = Ask(
            url_host=target.host,
            port=target.port,
            secure=target.secure,
            path=path,
            status=status,
            connect_s=self.settings.limits.connect_s,
            total_s=self.settings.total_s,
            method=method,
            data=urlencode(form).encode() if form is not None else b"",
            headers={**ours, "Connection": "close", **typed, **headers},
        )
        return exchange(ask, resolve, self.tls)


def _order_id(done: Exchange) -> str:
    """The id that confirm answered. Raises ShopError."""
    try:
        return str(uuid.UUID(json.loads(done.body)["orderId"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ShopError(f"confirm: the answer has no orderId: {done.body[:200]!r}") from error


def _region(done: Exchange, settings: LedgerSettings) -> str | None:
    said = done.headers.get(settings.region_header.lower(), "")
    return next((region for region in settings.regions if region in said), None)
