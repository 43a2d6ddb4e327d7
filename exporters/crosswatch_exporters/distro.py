"""What `OTEL_PYTHON_DISTRO=crosswatch` does: defaults for the environment, and instrumentation that loads when the library it is for does.

Loading every installed instrumentation at start imports every library it instruments. A service that uses three of ten waits for three.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # the module asks type checkers to ignore it
from opentelemetry.util._importlib_metadata import EntryPoint

log = logging.getLogger(__name__)

DEFAULTS = {
    # The instrumentations still emit the names from before the conventions became stable unless they are told otherwise.
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
    "OTEL_PROPAGATORS": "tracecontext,baggage,xray",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # The SDK's own resource detectors; ours are added by the configurator.
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel",
}

_SDK_HANDLER = "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"

# The module whose import means that a library is used, where it is not the instrumentation's own name.
_MODULES = {
    "psycopg": "psycopg",
    "psycopg2": "psycopg2",
    "starlette": "starlette.applications",
    "botocore": "botocore.client",
    "boto3": "botocore.client",
    "pika": "pika",
    "redis": "redis",
    "flask": "flask",
    "fastapi": "fastapi",
    "requests": "requests",
}


class CrosswatchDistro(BaseDistro):  # type: ignore[misc]  # the base is untyped
    """The distro."""

    def _configure(self, **kwargs: Any) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        # Told that the SDK's handler is there, the logging instrumentation leaves out its own; then there would be none.
        if os.environ.get(_SDK_HANDLER, "").strip().lower() == "true":
            del os.environ[_SDK_HANDLER]

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Instrument now, or when the library is first imported, where we know which module to wait for."""

        def load() -> None:
            instrument(entry_point, **kwargs)

        module = _MODULES.get(entry_point.name)
        if module is None:
            load()
        elif entry_point.name == "starlette":
            when_imported(module, lambda: after_fastapi(load))
        else:
            when_imported(module, load)


def instrument(entry_point: EntryPoint, **kwargs: Any) -> None:
    """Instrument one library. What goes wrong is logged and never raised: it would come out of the service's own `import`."""
    try:
        entry_point.load()().instrument(**kwargs)
    except ModuleNotFoundError as error:
        log.debug("%s is not instrumented: %s", entry_point.name, error)
    except Exception as error:  # noqa: BLE001  # an instrumentation's own, such as a pattern in OTEL_PYTHON_EXCLUDED_URLS that is none
        log.warning("%s is not instrumented: %s: %s", entry_point.name, type(error).__name__, error)


def when_imported(module: str, act: Callable[[], None]) -> None:
    """Do something once `module` has been imported, which may be now."""
    import wrapt

    if module in sys.modules:
        act()
    else:
        wrapt.register_post_import_hook(lambda _: act(), module)


def after_fastapi(act: Callable[[], None]) -> None:
    """Instrument Starlette only after FastAPI has been defined from it: FastAPI would otherwise inherit Starlette's instrumentation and
    have two."""
    if "fastapi" in sys.modules:
        when_imported("fastapi", act) if _still_loading("fastapi") else act()
    else:
        act()


def _still_loading(name: str) -> bool:
    spec = getattr(sys.modules[name], "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
