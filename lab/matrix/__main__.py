"""``python -m lab.matrix DIR [DOCS]``: the tables in docs/lab from the records that `lab matrix --out DIR` left."""

from __future__ import annotations

import sys
from pathlib import Path

from lab.matrix import pages
from lab.matrix.record import load


def main(arguments: list[str]) -> int:
    """Write the pages; 2 where there are no records."""
    if not arguments or not (records := {record.fault: record for record in load(Path(arguments[0]))}):
        print("usage: python -m lab.matrix DIR [DOCS], where DIR holds the records of 'lab matrix --out DIR'", file=sys.stderr)
        return 2
    docs = Path(arguments[1] if len(arguments) > 1 else "docs/lab")
    for name, page in (("matrix", pages.matrix), ("probe-classes", pages.probe_classes), ("vended-metrics", pages.vended)):
        (docs / f"{name}.md").write_text(page(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
