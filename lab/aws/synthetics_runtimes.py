"""The Python runtimes of CloudWatch Synthetics, with the dates DescribeRuntimeVersions gives.

Deprecation dates are those AWS published (CloudWatch_Synthetics_Canaries_Library page); a runtime past its date keeps running but canaries
can no longer be created on it or updated. Release dates of 8.0 and later are inferred from when public repositories took them up, not
published.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

_FIRST_WITH_RETRIES = (5, 1)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime version; dates at midnight UTC."""

    version: str
    description: str
    released: dt.date
    deprecated: dt.date | None = None

    @property
    def name(self) -> str:
        """``syn-python-selenium-...``."""
        return f"syn-python-selenium-{self.version}"

    @property
    def number(self) -> tuple[int, ...]:
        """For comparing versions."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def retries(self) -> bool:
        """Whether it does retries and dry runs."""
        return self.number >= _FIRST_WITH_RETRIES

    def is_deprecated(self, now: float) -> bool:
        """Whether ``now`` (epoch seconds) lies past its deprecation date."""
        return self.deprecated is not None and now >= midnight(self.deprecated)


def midnight(date: dt.date) -> float:
    """The date as epoch seconds."""
    return dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC).timestamp()


def _text(python: str, selenium: str, chromium: str) -> str:
    return f"Python {python}, Selenium {selenium}, Chromium {chromium}"


_GONE_38, _GONE_2024, _GONE_39 = dt.date(2026, 1, 22), dt.date(2024, 3, 8), dt.date(2026, 2, 3)

RUNTIMES = (
    Runtime("14.0", _text("3.12", "4.32.0", "153.0.8010.36"), dt.date(2026, 11, 10)),
    Runtime("13.0", _text("3.12", "4.32.0", "153.0.8010.36"), dt.date(2026, 10, 6)),
    Runtime("12.0", _text("3.12", "4.32.0", "150.0.7871.24"), dt.date(2026, 8, 6)),
    Runtime("11.1", _text("3.12", "4.32.0", "147.0.7727.57"), dt.date(2026, 6, 16)),
    Runtime("11.0", _text("3.12", "4.32.0", "147.0.7727.57"), dt.date(2026, 5, 19)),
    Runtime("10.0", _text("3.11", "4.32.0", "145.0.7632.77"), dt.date(2026, 3, 10)),
    Runtime("9.0", _text("3.11", "4.32.0", "143.0.7499.169"), dt.date(2026, 1, 13)),
    Runtime("8.0", _text("3.11", "4.32.0", "142.0.7444.175"), dt.date(2025, 12, 2)),
    Runtime("7.0", _text("3.11", "4.32.0", "138.0.7204.168"), dt.date(2025, 8, 14)),
    Runtime("6.0", _text("3.11", "4.21.0", "131.0.6778.264"), dt.date(2025, 5, 21)),
    Runtime("5.1", _text("3.9", "4.21.0", "131.0.6778.264"), dt.date(2025, 3, 13), _GONE_39),
    Runtime("5.0", _text("3.9", "4.21.0", "131.0.6778.264"), dt.date(2025, 2, 5), _GONE_39),
    Runtime("4.1", _text("3.9", "4.15.1", "126.0.6478.126"), dt.date(2024, 11, 21), _GONE_39),
    Runtime("4.0", _text("3.9", "4.15.1", "126.0.6478.126"), dt.date(2024, 8, 22), _GONE_39),
    Runtime("3.0", _text("3.8", "4.15.1", "121.0.6167.139"), dt.date(2024, 4, 22), _GONE_38),
    Runtime("2.1", _text("3.8", "4.15.1", "111.0.5563.146"), dt.date(2024, 1, 4), _GONE_38),
    Runtime("2.0", _text("3.8", "4.10.0", "111.0.5563.146"), dt.date(2023, 5, 24), _GONE_2024),
    Runtime("1.3", _text("3.8", "3.141.0", "92.0.4512.0"), dt.date(2022, 9, 19), _GONE_2024),
    Runtime("1.2", _text("3.8", "3.141.0", "92.0.4512.0"), dt.date(2022, 1, 24), _GONE_2024),
    Runtime("1.1", _text("3.8", "3.141.0", "83.0.4103.0"), dt.date(2021, 11, 2), _GONE_2024),
    Runtime("1.0", _text("3.8", "3.141.0", "83.0.4103.0"), dt.date(2021, 3, 10), _GONE_2024),
)
BY_NAME = {runtime.name: runtime for runtime in RUNTIMES}
_OTHER_LANGUAGES = re.compile(r"syn-(nodejs-(puppeteer|playwright)|nodejs|java)-[0-9.]+")


def is_other_language(name: str) -> bool:
    """Whether ``name`` looks like one of AWS's runtimes for another language."""
    return _OTHER_LANGUAGES.fullmatch(name) is not None
