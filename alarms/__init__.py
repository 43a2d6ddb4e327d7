"""CloudWatch alarms: rendered from the topology, evaluated offline, linted, tested and backtested."""
