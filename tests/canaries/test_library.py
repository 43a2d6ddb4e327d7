"""The documented functions of the library, called as the documentation's examples call them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.canaries.servers import answering, page, raw_server

if TYPE_CHECKING:
    from tests.canaries.servers import Runner

FLAGS = {
    "with_2xx_metric": "2xx_metric",
    "with_4xx_metric": "4xx_metric",
    "with_5xx_metric": "5xx_metric",
    "withAggregated2xxMetric": "aggregated_2xx_metric",
    "withAggregated4xxMetric": "aggregated_4xx_metric",
    "with_aggregated_5xx_metric": "aggregated_5xx_metric",
    "with_aggregated_failed_canary_metric": "aggregated_failed_canary_metric",
    "with_aggregated_failed_requests_metric": "aggregated_failed_requests_metric",
    "with_failed_canary_metric": "failed_canary_metric",
    "with_failed_requests_metric": "failed_requests_metric",
    "with_step_duration_metric": "step_duration_metric",
    "with_step_success_metric": "step_success_metric",
    "with_screenshot_on_step_start": "screenshot_on_step_start",
    "with_screenshot_on_step_success": "screenshot_on_step_success",
    "with_screenshot_on_step_failure": "screenshot_on_step_failure",
}


def run(runner: Runner, body: str) -> list[str]:
    """Run the body of an async handler; what it logged."""
    head = """
        from aws_synthetics.common import synthetics_configuration as config, synthetics_logger as logger
        from aws_synthetics.selenium import synthetics_webdriver as webdriver
        async def handler(event, context):
        """
    result = runner.script(textwrap.dedent(head) + textwrap.indent(textwrap.dedent(body), "    "))
    assert result.passed, result.state_reason
    return [line.message for line in result.log]


def test_every_configuration_flag_has_its_method_and_methods_chain(runner: Runner) -> None:
    chain = "".join(f".{method}(False)" for method in FLAGS)
    checks = "\n".join(f"        assert config.get({option!r}) is False" for option in FLAGS.values())
    run(
        runner,
        f"""
        assert all(config.get(o) for o in {list(FLAGS.values())!r})
        assert config{chain} is config
{checks}
        assert config.enable_step_screenshots().get_screenshot_on_step_failure()
        assert not config.disable_step_screenshots().get_screenshot_on_step_start()
        assert not config.get_screenshot_on_step_success()
        config.enable_request_metrics().disable_aggregated_request_metrics()
        assert config.get('5xx_metric') and not config.get('aggregated_5xx_metric')
        config.enable_aggregated_request_metrics().disable_request_metrics()
        assert not config.get('2xx_metric') and not config.get('aggregated_2xx_metric')
        config.enable_step_metrics()
        assert config.get('step_success_metric')
        config.set_config({{'continue_on_step_failure': True, '4xx_metric': True}})
        assert config.get('continue_on_step_failure') and config.get('4xx_metric')
        """,
    )


def test_options_do_not_outlive_their_run(runner: Runner) -> None:
    script = "assert config.get('2xx_metric')\nconfig.with_2xx_metric(False)"
    run(runner, script)
    run(runner, script)


def test_the_logger_writes_levels_and_formats(runner: Runner) -> None:
    lines = run(
        runner,
        """
        import logging
        logger.debug('unseen')
        logger.info('%s of %d', 'one', 3)
        logger.log('same')
        logger.warning('mind'); logger.warn('mind too'); logger.error('bad')
        try:
            1 / 0
        except ZeroDivisionError:
            logger.exception('why')
        logger.set_level(logging.ERROR)
        assert logger.get_level() == logging.ERROR
        logger.warning('unseen')
        logger.set_level('DEBUG')
        logger.debug('seen')
        """,
    )
    wanted = ["INFO: one of 3", "INFO: same", "WARNING: mind", "WARNING: mind too", "ERROR: bad", "ERROR: why", "DEBUG: seen"]
    assert [line for line in lines if line in wanted] == wanted
    assert "ZeroDivisionError: division by zero" in lines
    assert not [line for line in lines if "unseen" in line]


def test_the_user_agent_carries_the_canary_and_what_was_added(runner: Runner) -> None:
    lines = run(
        runner, "await webdriver.add_user_agent('mine')\nwebdriver.add_user_agent('too')\nprint(webdriver.get_canary_user_agent_string())"
    )
    assert "CloudWatchSynthetics/arn:aws:synthetics:us-east-1:123456789012:canary:tested mine too" in lines


@pytest.mark.parametrize(("payload", "answer"), [(page("ok"), 200), (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 503), (b"", "error")])
def test_get_http_response_is_a_status_or_error(runner: Runner, payload: bytes, answer: int | str) -> None:
    with raw_server(answering(payload)) as port:
        run(runner, f"assert webdriver.get_http_response('http://127.0.0.1:{port}/') == {answer!r}")


def test_there_is_nothing_that_aws_does_not_have(runner: Runner) -> None:
    run(runner, "assert not hasattr(webdriver, 'execute_http_step') and not hasattr(webdriver, 'executeHttpStep')")
