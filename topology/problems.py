"""Problems as values: what is wrong, where, and how to mend it; collected, so that a user sees them all at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``key`` is the dotted path in the file (``regions.us-east-1.alb``), ``line`` counts from 1."""

    what: str
    mend: str
    file: str = ""
    key: str = ""
    line: int | None = None
    severity: Severity = "error"
    check: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
        where = ": ".join(part for part in (place, self.key) if part)
        name = f" [{self.check}]" if self.check else ""
        return f"{where + ': ' if where else ''}{self.what}{name}\n    mend: {self.mend}"

    def to_json(self) -> dict[str, str | int | None]:
        """The problem as a JSON object."""
        return {
            "severity": self.severity,
            "check": self.check,
            "file": self.file,
            "line": self.line,
            "key": self.key,
            "what": self.what,
            "mend": self.mend,
        }


class UnusableInput(Exception):
    """Input that nothing can be done with; carries every problem found. The command line answers with exit code 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
