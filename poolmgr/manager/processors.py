"""How busy the processors of the machine are, by whatever runs on it."""

from __future__ import annotations


class Processors:
    """Looks at them. psutil is imported with the first one that is made: only those who look pay for it."""

    def __init__(self) -> None:
        import psutil

        self._cpu_percent = psutil.cpu_percent
        self._cpu_percent(None)  # the first answer means nothing: it begins the span of the next

    def used_percent(self) -> float:
        """How much of all of them was in use since this was asked last."""
        return float(self._cpu_percent(None))
