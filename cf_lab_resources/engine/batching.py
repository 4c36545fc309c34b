"""Batches of one fixed shape, halved where the device has no room for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from cf_lab_resources.errors import LabError

Item = TypeVar("Item")
Result = TypeVar("Result")


class OutOfMemory(LabError):
    """Not even one member at a time fits the device."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device is out of memory; the CPU's allocator has no class."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


class Batches:
    """Does work in batches of one size, which it halves and remembers where memory runs out.

    Attributes:
        size: of a batch.
    """

    def __init__(self, size: int, smallest: int = 1) -> None:
        """Begin with a size.

        Args:
            size: to try first.
            smallest: that makes sense.
        """
        self.size, self._smallest = max(size, smallest), smallest

    def run(
        self, items: Sequence[Item], work: Callable[[list[Item]], Sequence[Result]]
    ) -> list[Result]:
        """The results of all items, in their order.

        Args:
            items: what is to be done; the last batch is filled up with the last item, so that
                each has the same shape.
            work: does one batch, or only the first of its items, at least one; the others come
                again in the next.

        Raises:
            OutOfMemory: the smallest batch does not fit.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = list(items[len(results) : len(results) + self.size])
            filled = batch + batch[-1:] * (self.size - len(batch))
            try:
                done = work(filled)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
                continue
            results += done[: len(batch)]
        return results

    def _halve(self, error: Exception) -> None:
        if self.size <= self._smallest:
            raise OutOfMemory(
                "the device has no room for the smallest batch; choose a smaller editor, a lower "
                "precision or another device"
            ) from error
        self.size = max(self.size // 2, self._smallest)
