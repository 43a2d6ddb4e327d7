"""Crosswatch exporters: an OpenTelemetry distro whose telemetry survives the incident it reports.

A finished span, log record or collected metric goes one way::

    SDK -> pump (encodes, in a thread of its own) -> journal (bounded, on disk) -> sender (one for each destination) -> AWS or a collector

Each stage is a module: `encoding`, `journal`, `sender`. `ledger` accounts for every item on its way, `guards` limits what may leave the
process,
`configurator` puts the parts together from the environment. Importing this package imports nothing else.
"""

__version__ = "0.1.0"
