"""What the shopper does, step by step, and what has to be on the screen after each. Selectors fit the guidance's store and its kin:
form actions and field names, never positions or styling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
PRICE: Final = re.compile(r"\$\s?[\d,]+(\.\d\d)?")
FIELDS: Final = {
    "firstName": "Synthetic",
    "lastName": "Shopper",
    "address1": "1 Canary Row",
    "city": "Nowhere",
    "state": "WA",
    "zip": "98101",
}
PRODUCT_LINK: Final = 'a[href*="/catalog/"]'


class JourneyError(Exception):
    """The shopper did not see what should be there; the text says what, and what was there instead."""


@dataclass(slots=True)
class Shopper:
    """A shopper at a browser. ``confirmed``: the last button was pressed; ``order_id`` is set once the store has thanked for an order."""

    browser: Any
    url: str
    wait_s: float
    email: str
    product: str = ""
    price: str = ""
    order_id: str = ""
    confirmed: bool = False
    steps: tuple[tuple[str, Callable[[], None]], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = (
            ("home", self.home),
            ("catalog", self.catalog),
            ("product", self.look_at_product),
            ("cart", self.add_to_cart),
            ("checkout", self.checkout),
            ("delivery", self.delivery),
            ("payment", self.payment),
            ("order", self.order),
        )

    def home(self) -> None:
        """The home page, with something to buy on it."""
        self.browser.get(f"{self.url}/home")
        self._see(PRODUCT_LINK, "a link to a product")

    def catalog(self) -> None:
        """The catalog, with products, prices and pictures that load."""
        self.browser.get(f"{self.url}/catalog")
        self._see(PRODUCT_LINK, "a link to a product")
        if not PRICE.search(self._text()):
            raise JourneyError(f"the catalog shows no price; {self._gist()}")
        self._pictures()

    def look_at_product(self) -> None:
        """A product's own page, with its name, its price and a button to buy it."""
        links = [link for link in self.browser.find_elements(By.CSS_SELECTOR, PRODUCT_LINK) if UUID.search(link.get_attribute("href"))]
        if not links:
            raise JourneyError(f"no link of the catalog leads to a product; {self._gist()}")
        self.browser.get(links[0].get_attribute("href"))
        self._see('form[action="/cart"] button', "a button to buy")
        self.product = self.browser.find_element(By.CSS_SELECTOR, "h1, h2").text.strip()
        price = PRICE.search(self._text())
        if not self.product or price is None:
            raise JourneyError(f"the product has no {'name' if price else 'price'}; {self._gist()}")
        self.price = price.group()

    def add_to_cart(self) -> None:
        """The cart, with that product in it at that price."""
        self._press('form[action="/cart"] button')
        self._see('a[href="/checkout"]', "a way to the checkout")
        text = self._text()
        if self.product not in text or self.price not in text:
            raise JourneyError(f"the cart does not show {self.product!r} at {self.price}; {self._gist()}")

    def checkout(self) -> None:
        """The address form, filled in."""
        self._press('a[href="/checkout"]')
        self._see('form[action="/checkout"] [name="firstName"]', "the address form")
        for name, value in {**FIELDS, "email": self.email}.items():
            box = self.browser.find_element(By.CSS_SELECTOR, f'form[action="/checkout"] [name="{name}"]')
            box.clear()
            box.send_keys(value)
        self._press('form[action="/checkout"] button')

    def delivery(self) -> None:
        """Ways of delivery; the first is taken."""
        self._see('form[action="/checkout/delivery"] [name="token"]', "ways of delivery")
        self._press('form[action="/checkout/delivery"] button')

    def payment(self) -> None:
        """Payment, then one last look with the product on it."""
        self._see('form[action="/checkout/payment"]', "the payment form")
        self._press('form[action="/checkout/payment"] button')
        self._see('form[action="/checkout/confirm"]', "the confirmation")
        if self.product not in self._text():
            raise JourneyError(f"the confirmation does not show {self.product!r}; {self._gist()}")

    def order(self) -> None:
        """The order is placed and thanked for, with its number."""
        button = self.browser.find_element(By.CSS_SELECTOR, 'form[action="/checkout/confirm"] button')
        self.confirmed = True
        button.click()
        self._until(lambda: UUID.search(self._text()), "an order number")
        found = UUID.search(self._text())
        self.order_id = found.group() if found else ""

    def late_number(self) -> str:
        """The order's number where it shows by now, for who gave up waiting for it; empty where it does not, or the browser is gone."""
        try:
            found = UUID.search(self._text())
        except (WebDriverException, OSError, HTTPError):
            return ""
        return found.group() if found else ""

    # ------------------------------------------------------------------ seeing

    def _see(self, selector: str, what: str) -> None:
        self._until(lambda: self.browser.find_elements(By.CSS_SELECTOR, selector), what)

    def _until(self, there: Callable[[], object], what: str) -> None:
        try:
            # A page that is replaced while it is read is not there yet.
            WebDriverWait(self.browser, self.wait_s, 0.05, [StaleElementReferenceException]).until(lambda _: there())
        except TimeoutException:
            raise JourneyError(f"{what} did not appear within {self.wait_s:g} s; {self._gist()}") from None

    def _press(self, selector: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def _text(self) -> str:
        return str(self.browser.find_element(By.TAG_NAME, "body").text)

    def _gist(self) -> str:
        """Where the shopper is, how that was answered where not well, and the first words on the screen."""
        status = self.browser.execute_script("return (performance.getEntriesByType('navigation')[0] || {}).responseStatus") or 0
        answered = f", which was answered {status}," if status >= 400 else ""
        try:
            words = " ".join(self._text().split())[:160] or "nothing"
        except StaleElementReferenceException:
            words = "nothing that lasts"
        return f"{self.browser.current_url}{answered} says: {words}"

    def _pictures(self) -> None:
        """Raises JourneyError naming the pictures that did not load."""
        script = "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        self._until(lambda: self.browser.execute_script("return [...document.images].every(i => i.complete)"), "the last picture")
        broken = self.browser.execute_script(script)
        if broken:
            count = "a picture does" if len(broken) == 1 else f"{len(broken)} pictures do"
            more = ", …" if len(broken) > 3 else ""
            raise JourneyError(f"{count} not load at {self.browser.current_url}: {', '.join(broken[:3])}{more}")
