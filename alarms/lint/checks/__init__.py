"""One check per module: a `NAME`, and `check`, which yields findings. Each has a page in docs/alarms/checks/."""
