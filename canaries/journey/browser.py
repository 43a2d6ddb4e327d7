"""Chromium for a store that the world does not know: its own DNS server, its own certificate authority; and our marks on every request."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

from selenium.webdriver.chrome.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from canaries.shared.resolve import Answer
    from canaries.shared.target import Target


def options(target: Target, answer: Answer | None, ca: str | None, timeout_s: float) -> Options:
    """Options for one run. Raises OSError (ssl.SSLError is one) when the store's certificate does not hold.

    ``answer``: the name is mapped to its first address, as our resolver gave it. ``ca``: the key that the store shows is checked against
    that authority by us, then trusted by Chromium.
    """
    chosen = Options()
    if answer is not None:
        chosen.add_argument(f"--host-resolver-rules=MAP {target.host} {answer.addresses[0]}")
    if ca is not None and target.secure:
        address = answer.addresses[0] if answer else target.host
        pin = public_key_pin(certificate(address, target, ca, timeout_s))
        chosen.add_argument(f"--ignore-certificate-errors-spki-list={pin}")
    return chosen


def certificate(address: str, target: Target, ca: str, timeout_s: float) -> bytes:
    """The certificate that the store shows, DER, once it has been verified against ``ca``."""
    context = ssl.create_default_context(cadata=ca)
    with (
        socket.create_connection((address, target.port), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=target.host) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def public_key_pin(der: bytes) -> str:
    """Base64 of the SHA-256 of a certificate's SubjectPublicKeyInfo, as Chromium's pins are (RFC 7469, section 2.4)."""
    _, body, _ = _element(der, 0)
    _, tbs, _ = _element(der, body)
    position = tbs
    fields: list[tuple[int, int, int]] = []
    while len(fields) < 7:
        tag, _, end = _element(der, position)
        fields.append((tag, position, end))
        position = end
    skip = 1 if fields[0][0] == 0xA0 else 0  # the explicit version; then serial, algorithm, issuer, validity, subject, key
    _, first, last = fields[skip + 5]
    return base64.b64encode(hashlib.sha256(der[first:last]).digest()).decode()


def mark(browser: Any, headers: Mapping[str, str]) -> None:
    """Put our headers on every request of the browser; the user agent is the runtime's to set."""
    extra = {name: value for name, value in headers.items() if name not in {"User-Agent", "Accept"}}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": extra})


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start of the content and end of the DER element at ``at``."""
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    return tag, start, start + length
