"""X-Ray segment documents through PutTraceSegments: where Transaction Search is off, or where X-Ray's own model is wanted.

Spans are kept in the spool as OTLP and translated when they are sent, so that either way can deliver what the other left behind.
"""
