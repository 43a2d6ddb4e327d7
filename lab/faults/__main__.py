"""``python -m lab.faults``: the catalogue as the page docs/lab/faults.md."""

from __future__ import annotations

from itertools import groupby

from lab.faults import CATALOGUE, Where

HEAD = """\
# Faults

Made by `python -m lab.faults > docs/lab/faults.md`. `lab fault inject NAME [--region R]` breaks, `lab fault heal [NAME]` mends and waits
until the part is whole; `tests/lab/test_faults_live.py` injects each for real, looks for its damage from outside, heals it and checks that
everything is whole again.

Faults may overlap, and heal in any order, as long as they do not have to do with the same thing: two settings of one resolver, two releases
of one service, a process that dies and what it had been told. Such a second one is refused, with the name of the fault to heal first.
Healing all goes on where one fault cannot be healed, tries that one again after the others, and says what is left. A fault that could only
be begun is undone.
"""


def page() -> str:
    """The page."""
    parts = [HEAD]
    for family, faults in groupby(CATALOGUE, key=lambda fault: fault.family):
        parts.append(f"\n## {family.capitalize()}\n\n| fault | where | what breaks | where it shows |\n| --- | --- | --- | --- |\n")
        parts += [
            f"| `{fault.name}` | {'one Region' if fault.where is Where.REGION else 'the lab'} | {fault.sentence} | {fault.shows} |\n"
            for fault in faults
        ]
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
