"""The store as a customer's HTTP client sees it: a cart, a checkout, an order; and the two requests that only canaries make.

Routes: the guidance's UI (``POST /cart``, ``/checkout``, ``/checkout/delivery``, ``/checkout/payment``, ``/checkout/confirm``). A store
that wants a ledger adds to it: confirm answers the order's id as JSON ``{"orderId"}`` to who accepts only that, ``GET /orders/{id}``
answers 200 or 404, and ``DELETE /orders/{id}`` removes an order that was placed with the synthetic mark (docs/canaries.md).
"""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from canaries.ledger.book import Seen
from canaries.shared import trace
from canaries.shared.exchange import Ask, Exchange, Phase, exchange
from canaries.shared.resolve import Answer, ResolveError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from canaries.ledger.settings import LedgerSettings
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
SAMPLED: Final = (
    50  # requests of a run that are traced: their subsegments fit into one document, so that no service's trace lacks its parent
)
NEVER_SENT: Final = frozenset({Phase.DNS, Phase.CONNECT, Phase.TLS})


class ShopError(Exception):
    """The store did not do what it was asked; the text names the step and what it answered."""


class NotPlacedError(ShopError):
    """The store refused an order, or was never asked for it: there is none."""


@dataclass(frozen=True, slots=True)
class Basket:
    """A checkout that only lacks its confirmation: its session, and the address that keeps it in one Region."""

    session: Mapping[str, str]
    resolve: Callable[[str, float], Answer]


@dataclass(frozen=True, slots=True)
class Receipt:
    """An acknowledged order and the Region that took it, where it said so."""

    order_id: str
    region: str | None


@dataclass(slots=True)
class Shop:
    """Requests to the store under one trace; ``spans`` are the traced ones."""

    settings: LedgerSettings
    resolve: Callable[[str, float], Answer]
    tls: ssl.SSLContext
    run: trace.TraceId
    user_agent: str
    spans: list[trace.Subsegment] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def fill(self, mark: str) -> Basket:
        """Go through the store up to the last question, all in one Region, as a browser would. Raises ShopError: nothing is placed."""
        target = self.settings.name
        answer = self._pin(target)
        session = {"Cookie": f"SESSIONID={uuid.uuid4()}"}
        products = PRODUCT.findall(self._step("catalog", target, answer, "GET", "/catalog", session).body)
        if not products:
            raise ShopError("catalog: no product is offered")
        self._step("cart", target, answer, "POST", "/cart", session, {"productId": products[0]}, 303)
        self._step("checkout", target, answer, "GET", "/checkout", session)
        delivery = self._step("address", target, answer, "POST", "/checkout", session, {**ADDRESS, "email": self.email(mark)})
        rates = DELIVERY.findall(delivery.body)
        if not rates:
            raise ShopError("address: no delivery option is offered; the address was not accepted")
        self._step("delivery", target, answer, "POST", "/checkout/delivery", session, {"token": rates[0]})
        self._step("payment", target, answer, "POST", "/checkout/payment", session, {})
        return Basket(session, answer)

    def confirm(self, basket: Basket) -> Receipt:
        """Place the order. Raises NotPlacedError where there is none for certain, and ShopError where there may be one."""
        headers = {**basket.session, "Accept": "application/json"}
        done = self._ask(self.settings.name, basket.resolve, "POST", "/checkout/confirm", headers, {}, sampled=True)
        if done.failure is not None:
            refused = done.failure.phase in NEVER_SENT or 400 <= (done.status or 0) < 500
            raise (NotPlacedError if refused else ShopError)(f"confirm: POST /checkout/confirm: {done.failure}")
        return Receipt(_order_id(done), _region(done, self.settings))

    def email(self, mark: str) -> str:
        """The customer of the order with this mark: by it an order whose id nobody was told can be found."""
        name, _, domain = self.settings.email.partition("@")
        return f"{name}+{mark}@{domain}"

    def look(self, target: Target, order_id: str) -> Seen:
        """Whether a target has an order."""
        found = self._ask(target, self.resolve, "GET", f"/orders/{order_id}", {"Accept": "application/json"}, None, sampled=False)
        if found.failure is not None and found.status is None:
            return Seen.UNKNOWN
        return {200: Seen.HERE, 404: Seen.ABSENT}.get(found.status or 0, Seen.UNKNOWN)

    def delete(self, order_id: str) -> str | None:
        """Remove a synthetic order through the name; safe to repeat. Returns why it could not be done, None when it is gone.

        A store that does not know an order (404) must not show it either: else DELETE goes somewhere else than the orders do.
        """
        result = self._remove(order_id)
        if result.status == 204:
            return None
        if result.status == 404:
            return self._still_shown(order_id)
        return str(result.failure) if result.status is None else f"DELETE /orders/{order_id} was answered {result.status}"

    def sweep(self, order_id: str) -> bool:
        """Remove an order that should not be there; whether it was."""
        return self._remove(order_id).status == 204

    def _remove(self, order_id: str) -> Exchange:
        return self._ask(
            self.settings.name, self.resolve, "DELETE", f"/orders/{order_id}", {"Accept": "application/json"}, None, 204, sampled=True
        )

    def _still_shown(self, order_id: str) -> str | None:
        """Why an order that DELETE does not know is not gone; a replica has ``read_within_s`` to follow."""
        text = f"DELETE /orders/{order_id} was answered 404"
        until = time.time() + self.settings.read_within_s
        while (seen := self.look(self.settings.name, order_id)) is Seen.HERE:
            if time.time() >= until:
                return f"{text}, yet GET still shows it"
            time.sleep(self.settings.poll_s)
        return None if seen is Seen.ABSENT else f"{text}, and GET does not say whether it is gone"

    def _pin(self, target: Target) -> Callable[[str, float], Answer]:
        """Resolve once: a checkout that changes Region half-way would lose its session. Raises ShopError."""
        try:
            answer = self.resolve(target.host, self.settings.limits.connect_s)
        except (ResolveError, OSError) as error:
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
        result = self._ask(target, resolve, method, path, headers, form, status, sampled=True)
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
        *,
        sampled: bool,
    ) -> Exchange:
        """One request. ``sampled``: it is traced, with a subsegment of its own, while there is room for one."""
        sampled = sampled and self.settings.traces and next(self._numbers) < SAMPLED
        span, began = trace.span_id(), time.time()
        ours = trace.headers(self.run, span, sampled, self.settings.vantage, self.user_agent)
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
        result = exchange(ask, resolve, self.tls)
        if sampled:
            self.spans.append(_subsegment(span, began, target, ask, result))
        return result


def _subsegment(span: str, began: float, target: Target, ask: Ask, result: Exchange) -> trace.Subsegment:
    error = str(result.failure) if result.failure is not None and (ask.method, result.status) != ("DELETE", 404) else None
    seconds, marks = result.phases.total / 1000, {"target": target.name}
    return trace.Subsegment(span, target.host, began, seconds, f"{target.url}{ask.path}", ask.method, result.status, error, marks)


def _order_id(done: Exchange) -> str:
    """The id that confirm answered. Raises ShopError."""
    try:
        return str(uuid.UUID(json.loads(done.body)["orderId"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShopError(f"confirm: the answer has no orderId: {done.body[:200]!r}") from error


def _region(done: Exchange, settings: LedgerSettings) -> str | None:
    said = done.headers.get(settings.region_header.lower(), "")
    return next((region for region in settings.regions if region in said), None)
