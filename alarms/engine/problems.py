"""What is wrong with a definition: collected, never raised one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: the key it is about, what is wrong (in AWS's words where they are known), and the mend."""

    where: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.mend}" if self.mend else text

    def under(self, prefix: str) -> Problem:
        """The same problem seen from an outer definition (``prefix`` is a file, an alarm, a list item)."""
        separator = "" if not self.where or self.where.startswith("[") else "."
        return Problem(f"{prefix}{separator}{self.where}", self.what, self.mend)


class DefinitionError(ValueError):
    """A definition CloudWatch would refuse, with every problem that was found in it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def aws_message(self) -> str:
        """The text of the ValidationError that AWS answers.

        Broken constraints are counted and listed together, anything else is reported alone, as the service does.
        """
        constraints = [p.what for p in self.problems if "failed to satisfy constraint" in p.what]
        if constraints and len(constraints) == len(self.problems):
            plural = "s" if len(constraints) > 1 else ""
            return f"{len(constraints)} validation error{plural} detected: " + "; ".join(constraints)
        other = [p.what for p in self.problems if p.what not in constraints]
        return other[0] if other else ""
