"""What is counted of each kind of fault: how often it was tried, what came of it, and what must never come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from gconet.runtime.errors import GconetError, one_line

MAX_MESSAGE = 4096  # characters of a refusal


@dataclass
class Fault:
    """One kind of fault.

    Attributes
    ----------
    name : what was done.
    outcomes : how often what came of it.
    losses : a line for each time that something came of it that must not: half a file under its final name, a crash, a
        refusal where there is nothing to refuse, an acceptance where there is.
    """

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    @property
    def tries(self) -> int:
        """How often it was tried; every try has one outcome."""
        return self.outcomes.total()

    def note(self, outcome: str) -> None:
        """Count a try."""
        self.outcomes[outcome] += 1

    def lose(self, what: str) -> None:
        """Keep what must not have happened in the try that is counted beside."""
        self.losses.append(what)

    def attempt(
        self, action: Callable[..., object], *arguments: object, expected: Sequence[str] = ("refused",)
    ) -> None:
        """Count an action on arguments as `accepted` or, if it raises a GconetError, `refused`.

        What is not `expected`, and any other error, is a loss.
        """
        try:
            action(*arguments)
            outcome, detail = "accepted", ""
        except GconetError as error:
            outcome, detail = "refused", str(error)
            if not detail or len(detail) > MAX_MESSAGE:
                self.lose(f"a refusal of {len(detail)} characters")
        except Exception as error:
            outcome, detail = "crashed", f"{type(error).__name__}: {one_line(error)}"
        self.note(outcome)
        if outcome not in expected:
            self.lose(f"{outcome}: {detail}" if detail else outcome)

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "fault": self.name,
            "tries": self.tries,
            "outcomes": dict(sorted(self.outcomes.items())),
            "lost": len(self.losses),
            "losses": self.losses,
        }


def fault_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of bench/results/README.md, of rows as `Fault.document` gives them; those of one `step` become one."""
    lines = ["| fault | tries | outcomes | lost |", "| --- | --- | --- | --- |"]
    for _, of_step in groupby(rows, key=lambda row: row["step"]):
        first, *others = of_step
        outcomes = sum((Counter(row["outcomes"]) for row in others), Counter(first["outcomes"]))
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        name = first["fault"]
        if others:
            kinds = [row["fault"].partition(": ")[2] for row in (first, *others)]
            name = f"{name.partition(': ')[0]}: {', '.join(kinds)}"
        lost = sum(row["lost"] for row in (first, *others))
        lines.append(f"| {name} | {outcomes.total()} | {told} | {lost} |")
    return "\n".join(lines) + "\n"
