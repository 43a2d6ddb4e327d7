"""Chromium as the runtime gives it to a script: headless, with the canary's user agent, kept until the run ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

VIEWPORT = (1920, 1080)
SOCKET_ROOM = 108 - len("/.org.chromium.Chromium.XXXXXX/SingletonSocket") - 1  # what is left of sockaddr_un.sun_path for a folder
BINARIES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class SyntheticsBrowser(webdriver.Chrome):
    """A Chrome driver whose ``quit()`` is the runtime's to call."""

    profile: Path
    scratch: Path

    def quit(self) -> None:
        """Does nothing: the runtime closes the browser after the run."""

    def end(self) -> None:
        """Really close it."""
        with contextlib.suppress(WebDriverException, OSError):
            super().quit()
        for folder in (self.profile, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)

    def set_viewport_size(self, width: int, height: int) -> None:
        """Size the window so that the page itself has ``width`` x ``height`` CSS pixels."""
        extra = self.execute_script("return [window.outerWidth - window.innerWidth, window.outerHeight - window.innerHeight];")
        self.set_window_size(width + extra[0], height + extra[1])

    def save_screenshot(self, filename: str, suffix: str | None = None) -> str:  # type: ignore[override]
        """Save a PNG under /tmp, from where it is uploaded; returns its name."""
        stem = Path(filename).name
        stem = stem.removesuffix(".png")
        name = f"{stem}-{suffix}.png" if suffix else f"{stem}.png"
        (Path(tempfile.gettempdir()) / name).write_bytes(self.get_screenshot_as_png())
        return name

    def append_user_agent(self, text: str) -> None:
        """Use a longer user agent from the next request on."""
        current = self.execute_script("return navigator.userAgent")
        self.execute_cdp_cmd("Network.setUserAgentOverride", {"userAgent": f"{current} {text}"})

    def take_requests(self) -> dict[str, int]:
        """Answers counted by class since the last call: ``2xx``, ``4xx``, ``5xx`` and ``failed``."""
        counts = {"2xx": 0, "4xx": 0, "5xx": 0, "failed": 0}
        try:
            entries: list[dict[str, Any]] = self.get_log("performance")  # type: ignore[no-untyped-call]
        except WebDriverException:  # the browser is gone
            return counts
        for entry in entries:
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.responseReceived":
                kind = f"{int(message['params']['response']['status']) // 100}xx"
                if kind in counts:
                    counts[kind] += 1
            elif message["method"] == "Network.loadingFailed" and not message["params"].get("canceled"):
                counts["failed"] += 1
        return counts


def start(options: Any, user_agent: str) -> SyntheticsBrowser:
    """Start Chromium with the script's options, if any, and the ones it needs to run headless in a small box."""
    options = options or Options()
    profile = Path(tempfile.mkdtemp(prefix="chromium-", dir=os.environ.get("CROSSWATCH_PROFILES")))
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={profile}",
        f"--window-size={VIEWPORT[0]},{VIEWPORT[1]}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    binary = next((found for name in BINARIES if (found := shutil.which(name))), None)
    if binary and not options.binary_location:
        options.binary_location = binary
    driver = shutil.which("chromedriver")
    if driver is None:
        raise WebDriverException("chromedriver is not installed (Debian: apt-get install chromium chromium-driver)")
    scratch = _scratch(profile)
    service = Service(executable_path=driver, env={**os.environ, "TMPDIR": str(scratch)})
    try:
        browser = SyntheticsBrowser(options=options, service=service)
    except WebDriverException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    browser.profile, browser.scratch = profile, scratch
    current = browser.execute_script("return navigator.userAgent")
    browser.execute_cdp_cmd("Network.setUserAgentOverride", {"userAgent": f"{current.replace('Headless', '')} {user_agent}"})
    return browser


def _scratch(profile: Path) -> Path:
    """Where Chromium puts a socket: beside its profile, or, where that path is too long for one, in a folder of its own below /tmp."""
    beside = profile / "tmp"
    if len(str(beside)) > SOCKET_ROOM:
        return Path(tempfile.mkdtemp(prefix="cr-", dir="/tmp"))
    beside.mkdir()
    return beside
