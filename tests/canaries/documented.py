"""A second fake of the library, written apart from the runtime's: what AWS documents and nothing else.

    python documented.py ROOT MODULE RAISES FOLDER...

runs the handler of ``ROOT/python/MODULE.py`` with the packages in FOLDER and prints what came of it as one line of JSON. RAISES is 1 for a
library whose steps raise whatever the script asked for. There is no user agent to ask for, a context that does not know the time, an
`add_execution_error` that wants both its arguments, and a browser that keeps no log.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

steps: list[str] = []
failures: list[str] = []
errors: list[str] = []
browsers: list[Any] = []
raises = False


class Configuration:
    def set_config(self, options: dict[str, bool]) -> Configuration:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("with_", "disable_", "enable_")):
            return lambda *_: self
        raise AttributeError(name)


async def execute_step(step_name: str, function_to_execute: Any) -> Any:
    steps.append(step_name)
    try:
        result = function_to_execute()
        return await result if inspect.isawaitable(result) else result
    except Exception as error:
        failures.append(f"{step_name}: {error}")
        if raises:
            raise


def add_execution_error(errorMessage: str, ex: BaseException) -> None:  # noqa: N803 - documented so
    errors.append(f"{errorMessage} ({type(ex).__name__})")


def say(level: str) -> Any:
    return lambda message, *args, **kwargs: print(level, message % args if args else message)


def chrome(chrome_options: Any = None) -> Any:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    class Browser(webdriver.Chrome):
        def quit(self) -> None:
            """The runtime's to call."""

        def set_viewport_size(self, width: int, height: int) -> None:
            self.set_window_size(width, height)

        def get_log(self, log_type: str) -> Any:
            raise WebDriverException("gone")

        def end(self) -> None:
            super().quit()

    options = chrome_options or Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={tempfile.mkdtemp()}"):
        options.add_argument(argument)
    browsers.append(Browser(options=options, service=Service(executable_path=shutil.which("chromedriver"))))
    return browsers[-1]


def install() -> None:
    """Make the modules that a script imports."""
    root, common, selenium = (types.ModuleType(f"aws_synthetics{name}") for name in ("", ".common", ".selenium"))
    levels = ("debug", "info", "log", "warning", "error", "exception")
    common.synthetics_configuration = Configuration()  # type: ignore[attr-defined]
    common.synthetics_logger = types.SimpleNamespace(**{name: say(name.upper()) for name in levels})  # type: ignore[attr-defined]
    selenium.synthetics_webdriver = types.SimpleNamespace(  # type: ignore[attr-defined]
        Chrome=chrome, execute_step=execute_step, add_execution_error=add_execution_error, get_http_response=lambda url: 200
    )
    for module in (root, common, selenium):
        sys.modules[module.__name__] = module


class Context:
    aws_request_id = "1"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:cwsyn-fake-1"


def main(folder: str, module: str, strict: str, *packages: str) -> None:
    global raises  # noqa: PLW0603 - one run a process
    raises = strict == "1"
    install()
    sys.path[:0] = [str(Path(folder) / "python"), *packages]
    result = problem = None
    try:
        made = importlib.import_module(module).handler({"canaryName": "fake"}, Context())
        result = asyncio.run(made) if inspect.iscoroutine(made) else made
    except Exception as error:  # noqa: BLE001 - it is the run's result
        problem = f"{type(error).__name__}: {error}"
    for each in browsers:
        each.end()
    print(json.dumps({"result": result, "problem": problem, "steps": steps, "failures": failures, "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:])
