"""What a proof found: its figures, each beside the limit that it promised to hold."""

from __future__ import annotations

Figure = int | float


class Report:
    """The figures of one proof, printed as they come.

    A report is ``ok`` when at least one figure had a limit, every limit held and nothing was skipped: a proof
    that measured nothing has proved nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._held = 0
        self._short = 0
        print(f"== {name}", flush=True)

    @property
    def ok(self) -> bool:
        """Whether the promise holds, as far as the figures so far tell."""
        return self._held > 0 and self._short == 0

    def figure(
        self,
        label: str,
        value: Figure,
        unit: str = "",
        *,
        at_least: Figure | None = None,
        at_most: Figure | None = None,
    ) -> bool:
        """Print a figure with its limits, and return whether it is within them. NaN is within none.

        A figure without limits is printed for information.
        """
        limits = []
        if at_least is not None:
            limits.append((f">= {_text(at_least)}", value >= at_least))
        if at_most is not None:
            limits.append((f"<= {_text(at_most)}", value <= at_most))
        within = all(held for _, held in limits)
        verdict = ("ok" if within else "SHORT") if limits else ""
        promised = " and ".join(limit for limit, _ in limits)
        line = f"   {label:<44} {_text(value):>14} {unit:<10} {promised:<22} {verdict}"
        print(line.rstrip(), flush=True)
        if limits:
            self._count(within)
        return within

    def note(self, text: str) -> None:
        """Print a line that says something about the figures: the machine, the load, the seed."""
        print(f"   {text}", flush=True)

    def skip(self, what: str) -> None:
        """Say that something could not be measured here. In a proof that is a failure."""
        print(f"   {what:<44} SKIPPED, so SHORT", flush=True)
        self._count(False)

    def _count(self, held: bool) -> None:
        if held:
            self._held += 1
        else:
            self._short += 1


def _text(value: Figure) -> str:
    if isinstance(value, int) or value != value or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
