"""The last gasp (MapReduce section 4.6): where an attempt was when its process died.

A page of memory shared by an executor and its supervisor. Before each record the map task writes
the record's number into it, one store and no system call, so that after a segmentation fault the
supervisor still knows it. It tells how far the attempt is as well, also within a block whose
records take long.

A position is a *mark*: the number of the record in the split, from 0. However an attempt's memory
cuts the split into blocks, a mark means the same record in all of them. What the record is, its
file and offset, is worked out only for suspects: records at which an attempt has died before
(``resolve``).
"""

import mmap
import time
from typing import Self

import msgspec

__all__ = ["PAGE_BYTES", "RECORD_WORD", "GaspPage", "Suspect"]

PAGE_BYTES = 64 << 10
RECORD_WORD = 1
_FIRST_WORD, _COUNT_WORD, _DONE_WORD, _SIZE_WORD = 0, 2, 3, 4
_SUSPECT_WORD, _SUSPECT_LENGTH_WORD, _STEPS_WORD, _BEGAN_WORD = 5, 6, 7, 8
_TURN_WORD, _STOP_WORD, _SINCE_WORD = 9, 10, 11
_SUSPECT_AT = 4096
_SHOWN_CHARACTERS = 4000


class Suspect(msgspec.Struct, frozen=True, array_like=True):
    """A record that may be about to end its process."""

    url: str
    offset: int
    record: str


class GaspPage:
    """One attempt at a time. ``words`` is for the map task's inner loop: it stores the number of
    the record in its block, from 1, at ``RECORD_WORD``, and 0 when none is being mapped."""

    def __init__(self, memory: "mmap.mmap | bytearray") -> None:
        self._memory = memory
        self.words = memoryview(memory).cast("Q")

    @classmethod
    def private(cls) -> Self:
        """For an attempt that runs in the process of its supervisor."""
        return cls(bytearray(PAGE_BYTES))

    @classmethod
    def shared(cls, descriptor: int) -> Self:
        """The page behind a memory file's descriptor."""
        return cls(mmap.mmap(descriptor, PAGE_BYTES))

    # --- the attempt -----------------------------------------------------------------------------

    def take_turn(self, turn: int) -> None:
        """The attempt that comes ``turn``-th of those given together, from 1, is at hand."""
        for word in range(_BEGAN_WORD + 1):
            self.words[word] = 0
        self.words[_SINCE_WORD] = time.monotonic_ns()
        self.words[_TURN_WORD] = turn

    @property
    def is_stopped(self) -> bool:
        """None is to take its turn any more."""
        return self.words[_STOP_WORD] != 0

    def begin(self) -> None:
        """All that the attempt needs is loaded: its own work begins."""
        self.words[_BEGAN_WORD] = time.monotonic_ns()

    def begin_block(self, first_record: int, *, record_count: int, size_bytes: int) -> None:
        """A block is mapped from here on; ``first_record`` records of the split precede it."""
        words = self.words
        words[RECORD_WORD] = 0
        words[_DONE_WORD] += words[_SIZE_WORD]
        words[_FIRST_WORD], words[_COUNT_WORD] = first_record, record_count
        words[_SIZE_WORD] = size_bytes
        words[_STEPS_WORD] += 1

    def resolve(self, record: int, suspect: Suspect) -> None:
        """What record ``record`` of the split is, from 0, which is mapped next."""
        shown = suspect.record[:_SHOWN_CHARACTERS]
        encoded = msgspec.msgpack.encode(Suspect(suspect.url, suspect.offset, shown))
        if len(encoded) <= PAGE_BYTES - _SUSPECT_AT:
            self._memory[_SUSPECT_AT : _SUSPECT_AT + len(encoded)] = encoded
            self.words[_SUSPECT_WORD] = record + 1
            self.words[_SUSPECT_LENGTH_WORD] = len(encoded)

    # --- its supervisor --------------------------------------------------------------------------

    def clear(self) -> None:
        """Attempts are about to be given to the executor; nobody is to take what it ran before for
        one of them."""
        for word in range(_STOP_WORD + 1):
            self.words[word] = 0
        self.words[_SINCE_WORD] = time.monotonic_ns()

    def stop(self) -> None:
        """None of those given together is to begin after the attempt at hand."""
        self.words[_STOP_WORD] = 1

    @property
    def turn(self) -> int:
        """Which of them is at hand, from 1; 0: none yet."""
        return self.words[_TURN_WORD]

    @property
    def mark(self) -> str:
        """The record that is being mapped, or was when the process died; "" if none was."""
        number = self._number()
        return str(number - 1) if number else ""

    @property
    def suspect(self) -> Suspect | None:
        """What is known of that record."""
        if not 0 < self._number() == self.words[_SUSPECT_WORD]:
            return None
        end = _SUSPECT_AT + self.words[_SUSPECT_LENGTH_WORD]
        return msgspec.msgpack.decode(bytes(self._memory[_SUSPECT_AT:end]), type=Suspect)

    def _number(self) -> int:
        """Of the record in the split, from 1; 0: none is being mapped."""
        in_block = self.words[RECORD_WORD]
        return self.words[_FIRST_WORD] + in_block if in_block else 0

    @property
    def done_bytes(self) -> int:
        """Of the input, as it is stored; an estimate within a block."""
        words = self.words
        count = words[_COUNT_WORD]
        within = words[_SIZE_WORD] * max(0, words[RECORD_WORD] - 1) // count if count else 0
        return words[_DONE_WORD] + within

    @property
    def worked_ms(self) -> int:
        """Since ``begin``, at least 1; 0 before. One clock serves all processes of a machine."""
        began_ns = self.words[_BEGAN_WORD]
        return max(1, (time.monotonic_ns() - began_ns) // 1_000_000) if began_ns else 0

    @property
    def at_hand_ms(self) -> int:
        """Since the attempt at hand took its turn, or since ``clear`` while none has."""
        return (time.monotonic_ns() - self.words[_SINCE_WORD]) // 1_000_000

    @property
    def steps(self) -> int:
        """Grows with every record and block."""
        return (self.words[_STEPS_WORD] << 32) + self.words[RECORD_WORD]
