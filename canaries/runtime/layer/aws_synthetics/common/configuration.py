"""Which screenshots are taken and which metrics are published: the flags of ``synthetics_configuration``."""

from __future__ import annotations

from typing import Any, Final

SCREENSHOTS: Final = ("screenshot_on_step_start", "screenshot_on_step_success", "screenshot_on_step_failure")
REQUESTS: Final = ("failed_requests_metric", "2xx_metric", "4xx_metric", "5xx_metric")
STEPS: Final = ("step_duration_metric", "step_success_metric")
CANARY: Final = ("failed_canary_metric", "aggregated_failed_canary_metric")
AGGREGATED: Final = tuple(f"aggregated_{name}" for name in REQUESTS)
DEFAULTS: Final = dict.fromkeys((*SCREENSHOTS, *REQUESTS, *STEPS, *CANARY, *AGGREGATED), True) | {"continue_on_step_failure": False}


class SyntheticsConfiguration:
    """The options of one run, all documented defaults at its start. Every ``with_``, ``disable_`` and ``enable_`` returns the object."""

    def __init__(self) -> None:
        self._options: dict[str, bool] = dict(DEFAULTS)

    def reset(self) -> None:
        """Back to the defaults, before each run."""
        self._options = dict(DEFAULTS)

    def set_config(self, options: dict[str, Any]) -> SyntheticsConfiguration:
        """Set several options by name. Raises ValueError for a name that is not documented and for a value that is not a boolean."""
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise ValueError(f"synthetics_configuration: unknown option(s) {', '.join(unknown)}; known are {', '.join(sorted(DEFAULTS))}")
        for name, value in options.items():
            self._set(name, value)
        return self

    def get(self, name: str) -> bool:
        """The value of one option."""
        return self._options[name]

    def _set(self, name: str, value: bool) -> SyntheticsConfiguration:
        if not isinstance(value, bool):
            raise ValueError(f"synthetics_configuration: {name} takes True or False, not {value!r}")
        self._options[name] = value
        return self

    def _set_all(self, names: tuple[str, ...], value: bool) -> SyntheticsConfiguration:
        for name in names:
            self._set(name, value)
        return self

    # Screenshots

    def with_screenshot_on_step_start(self, screenshot: bool) -> SyntheticsConfiguration:
        return self._set("screenshot_on_step_start", screenshot)

    def with_screenshot_on_step_success(self, screenshot: bool) -> SyntheticsConfiguration:
        return self._set("screenshot_on_step_success", screenshot)

    def with_screenshot_on_step_failure(self, screenshot: bool) -> SyntheticsConfiguration:
        return self._set("screenshot_on_step_failure", screenshot)

    def get_screenshot_on_step_start(self) -> bool:
        return self._options["screenshot_on_step_start"]

    def get_screenshot_on_step_success(self) -> bool:
        return self._options["screenshot_on_step_success"]

    def get_screenshot_on_step_failure(self) -> bool:
        return self._options["screenshot_on_step_failure"]

    def disable_step_screenshots(self) -> SyntheticsConfiguration:
        return self._set_all(SCREENSHOTS, False)

    def enable_step_screenshots(self) -> SyntheticsConfiguration:
        return self._set_all(SCREENSHOTS, True)

    # Metrics

    def with_2xx_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("2xx_metric", value)

    def with_4xx_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("4xx_metric", value)

    def with_5xx_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("5xx_metric", value)

    def withAggregated2xxMetric(self, value: bool) -> SyntheticsConfiguration:  # noqa: N802 - documented so
        return self._set("aggregated_2xx_metric", value)

    def withAggregated4xxMetric(self, value: bool) -> SyntheticsConfiguration:  # noqa: N802 - documented so
        return self._set("aggregated_4xx_metric", value)

    def with_aggregated_5xx_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("aggregated_5xx_metric", value)

    def with_aggregated_failed_canary_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("aggregated_failed_canary_metric", value)

    def with_aggregated_failed_requests_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("aggregated_failed_requests_metric", value)

    def with_failed_canary_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("failed_canary_metric", value)

    def with_failed_requests_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("failed_requests_metric", value)

    def with_step_duration_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("step_duration_metric", value)

    def with_step_success_metric(self, value: bool) -> SyntheticsConfiguration:
        return self._set("step_success_metric", value)

    def disable_aggregated_request_metrics(self) -> SyntheticsConfiguration:
        return self._set_all(AGGREGATED, False)

    def disable_request_metrics(self) -> SyntheticsConfiguration:
        return self._set_all((*REQUESTS, *AGGREGATED), False)

    def disable_step_metrics(self) -> SyntheticsConfiguration:
        return self._set_all(STEPS, False)

    def enable_aggregated_request_metrics(self) -> SyntheticsConfiguration:
        return self._set_all(AGGREGATED, True)

    def enable_request_metrics(self) -> SyntheticsConfiguration:
        return self._set_all((*REQUESTS, *AGGREGATED), True)

    def enable_step_metrics(self) -> SyntheticsConfiguration:
        return self._set_all(STEPS, True)
