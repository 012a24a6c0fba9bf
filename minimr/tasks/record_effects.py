"""What a record function does beside giving pairs: counters and side outputs, held back until it is
known whether its record is bad.

A bad record counts for nothing, as if the input had been without it, and one on which the function
failed at first counts once. Only jobs with ``--max-bad`` need this: in all others a failure ends
the attempt, and what an attempt did that does not commit is gone as a whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from minimr.counters import Counters, collecting, increment
from minimr.tasks.side_files import AttemptSides, HeldWrite

__all__ = ["RecordEffects"]

_HELD_BYTES_MAX = 1 << 20


class RecordEffects:
    """Of the records of a batch: ``counts`` and ``writes`` are those of the record at hand.

    Functions are called inside ``holding``. ``note`` ends a record, ``forget`` drops what its
    function did; ``keep`` does, in order, all that was noted.
    """

    def __init__(self, sides: AttemptSides | None) -> None:
        self.counts: Counters = {}
        self.writes: list[HeldWrite] = []
        self._sides = sides
        self._noted: dict[int, tuple[Counters, list[HeldWrite]]] = {}
        self._held_bytes = 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        with collecting(self.counts):
            if self._sides is None:
                yield
            else:
                with self._sides.held_in(self.writes):
                    yield

    def note(self, index: int) -> bool:
        """The record with this number in its batch has been mapped; whether there is room for
        more."""
        self._noted[index] = self.counts.copy(), self.writes.copy()
        self._held_bytes += sum(len(content) for _, content in self.writes)
        self.forget()
        return self._held_bytes < _HELD_BYTES_MAX

    def forget(self, index: int | None = None) -> None:
        """Drop what a record that was noted did, or the one at hand."""
        if index is None:
            self.counts.clear()
            self.writes.clear()
        else:
            self._noted.pop(index, None)

    def keep(self) -> None:
        for counts, writes in self._noted.values():
            for name, by in counts.items():
                increment(name, by)
            for file, content in writes:
                file.keep(content)
        self._noted.clear()
        self._held_bytes = 0
