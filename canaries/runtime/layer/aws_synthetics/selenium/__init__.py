"""``from aws_synthetics.selenium import synthetics_webdriver``."""

from aws_synthetics.selenium import constants, synthetics_webdriver

__all__ = ["constants", "synthetics_webdriver"]
