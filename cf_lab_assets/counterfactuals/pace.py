"""How far the drawing of a batch is, how fast it goes, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_SECONDS = 5.0  # a line at most


class Pace:
    """Says now and then how far drawing is.

    Chunks that were read back count as done and not for the speed: nothing of them was drawn.
    """

    def __init__(
        self, goal: int, *, of_sets: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin now.

        Args:
            goal: sources to draw; with ``of_sets``, accepted sets that are wanted. How many
                sources those take is not known beforehand, so that no end is foretold then.
            of_sets: what is counted.
            clock: seconds.
        """
        self._goal, self._of_sets, self._clock = goal, of_sets, clock
        self._chunks = self._done = self._candidates = self._made = 0
        self._drawn, self._seconds = 0, 0.0  # of chunks of which something was drawn
        self._since = self._said = clock()

    def loaded(self) -> None:
        """Take the time since the last chunk for no drawing: models were loaded."""
        self._since = self._clock()

    def chunk(self, done: int, candidates: int, made: int) -> str | None:
        """Take in a finished chunk; a line to show, or None where one was shown just now.

        Args:
            done: what the goal counts, so far.
            candidates: so far.
            made: those of them that this run has drawn itself.
        """
        now = self._clock()
        if made > self._made:
            self._seconds += now - self._since
            self._drawn += done - self._done
        self._chunks += 1
        self._done, self._candidates, self._made, self._since = done, candidates, made, now
        if now - self._said < EVERY_SECONDS:
            return None
        self._said = now
        return self.line()

    def line(self) -> str:
        """How far it is now."""
        what = "wanted sets accepted" if self._of_sets else "sources"
        said = [
            f"chunk {self._chunks:,}: {self._done:,} of {self._goal:,} {what}",
            f"{self._candidates:,} candidates",
        ]
        if back := self._candidates - self._made:
            said[-1] += f" ({back:,} of them read back)"
        if self._seconds:
            said.append(f"{self._made / self._seconds:,.1f} images/s")
        if self._drawn and not self._of_sets and self._done < self._goal:
            left = (self._goal - self._done) * self._seconds / self._drawn
            said.append(f"about {_spoken(left)} left")
        return ", ".join(said)


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
