"""Spans at a third of the SDK's cost: the same span, the same interface, fewer layers.

An SDK span wraps its attributes, events and links in containers with a lock each, checks every attribute against abstract base classes,
runs two generators for `start_as_current_span`, and is copied when it ends. Nearly all spans carry a few texts and numbers and nothing
else. For these a `LeanSpan` keeps a dict and checks types by identity; what is rarer (links at the start, values that must be cleaned,
limits that are reached, the service's own span processors, the SDK's internal metrics) is left to the SDK's own code. The tests do the
same to spans of both kinds and compare what comes out.
"""
