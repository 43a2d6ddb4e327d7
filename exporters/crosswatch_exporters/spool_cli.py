"""crosswatch-spool."""


def main() -> None:
    """Entry point."""
    raise SystemExit("crosswatch-spool: not built yet")
