"""How long a commit waits for its companion.

A short durable task is told twice, when it is submitted and when it has ended, some hundred microseconds apart. Where
the writer has nothing else to do, the first would be synced at once, and the second after it: two syncs one after the
other, where one does. So a commit that finds the writer idle waits for the second, if the last such commit has shown
that it comes soon: within half of what a commit takes. Where it then does not come, the next commit waits no more.

It costs at most a commit's time, each time that it is wrong; on a disk that syncs in 5 ms it halves what such a task
takes. Where no companion comes soon enough, nothing waits.
"""

from __future__ import annotations

from typing import Final

MOST_S: Final = 0.001


class Linger:
    """``wait_s``: how long the next commit is to wait for another, if it is alone; 0.0 for not at all."""

    __slots__ = ("wait_s",)

    def __init__(self) -> None:
        self.wait_s = 0.0

    def did_not_wait(self, took_s: float, next_after_s: float | None) -> None:
        """A commit took so long. The next was handed over so long after it had begun; None: not before it had ended."""
        if next_after_s is None or 2 * next_after_s > took_s:
            self.wait_s = 0.0
        else:  # what came before it had begun is taken together with it next time, without any wait
            self.wait_s = min(max(2 * next_after_s, 0.0), MOST_S)

    def waited(self, companion: bool) -> None:
        """A commit has waited, and its companion came or did not."""
        if not companion:
            self.wait_s = 0.0
