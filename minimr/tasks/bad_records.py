"""Mapping records of which some are bad (MapReduce section 4.6).

A record is bad if the user's function raises on it twice, or if it has ended the executor's process
in two attempts (``gasp``). With ``--max-bad N`` bad records go to the attempt's quarantine and the
map goes on; without, the first one fails the job, named by file and offset.
"""

from collections.abc import Iterator
from typing import Any

from minimr.counters import increment
from minimr.errors import UnsupportedType
from minimr.formats.records import MalformedRecord, Records
from minimr.messages import MapAssignment
from minimr.pairs import Pairs
from minimr.tasks.context import AttemptContext
from minimr.tasks.failures import UserCodeFailed, described, shown
from minimr.tasks.gasp import Suspect
from minimr.tasks.record_effects import RecordEffects
from minimr.tasks.side_files import AttemptSides
from minimr.tasks.user_code import RecordCalls

__all__ = ["BAD_RECORDS", "RecordMapper"]

BAD_RECORDS = "map.bad_records"
_DIED = "user code ended its process on this record, in more than one attempt"


class RecordMapper:
    """The record function of one map attempt. ``sides`` None: bad records are just left out."""

    def __init__(
        self, context: AttemptContext, assignment: MapAssignment, sides: AttemptSides | None
    ) -> None:
        self._context = context
        self._sides = sides
        self._effects = RecordEffects(sides)
        self._bad_count = 0
        self._first_pair: list[Any] = []
        self._skips = frozenset(map(int, assignment.skips))
        self._suspects = frozenset(map(int, assignment.suspects))

    def map(self, found: Records, first_record: int) -> Iterator[Pairs]:
        """The pairs of a block's records, a batch at a time; ``first_record`` records of the split
        precede it.

        Raises `UserCodeFailed` with the place of the record at fault.
        """
        function = self._context.job.map
        assert function is not None
        records = found.objects()

        def set_aside(index: int, error: Exception) -> None:
            self._set_aside(found, index, records[index], error)

        calls = RecordCalls(
            function,
            self._context.page.words,
            self._context.memory,
            self._first_pair,
            *((set_aside, self._effects) if self._context.spec.max_bad else ()),
        )
        try:
            start = 0
            for mark in self._special(first_record, len(records)):
                special = mark - first_record
                yield from calls.map(records, start, special)
                start = special
                if mark in self._skips:
                    self._quarantine(found, special, records[special], _DIED)
                    start += 1
                    continue
                url, offset = found.place_of(special)
                suspect = Suspect(url, offset, shown(records[special]))
                self._context.page.resolve(mark, suspect)
            yield from calls.map(records, start, len(records))
        except (UserCodeFailed, UnsupportedType) as error:
            raise self._at(error, found, calls.failed_index, records) from (
                error.__cause__ or error
            )

    def malformed(self, error: MalformedRecord) -> None:
        """A record that the input format's reader could not read; raises it if there are enough."""
        if self._bad_count >= self._context.spec.max_bad:
            raise error
        self._bad_count += 1
        increment(BAD_RECORDS)
        if self._sides is not None:
            self._sides.quarantine(
                url=error.url, offset=error.offset, record=error.record, reason=error.why
            )

    def _special(self, first: int, count: int) -> list[int]:
        """Records of a block that are to be skipped, or at which an attempt has died."""
        marks = self._skips | self._suspects
        return sorted(mark for mark in marks if first <= mark < first + count)

    def _set_aside(self, found: Records, index: int, record: object, error: Exception) -> None:
        if self._bad_count >= self._context.spec.max_bad:
            raise UserCodeFailed(
                f"one bad record more than the {self._context.spec.max_bad} of --max-bad: {error}"
            ) from (error.__cause__ or error)
        cause = error.__cause__
        self._quarantine(found, index, record, str(error) if cause is None else described(cause))

    def _quarantine(self, found: Records, index: int, record: object, reason: str) -> None:
        self._bad_count += 1
        increment(BAD_RECORDS)
        if self._sides is not None:
            url, offset = found.place_of(index)
            self._sides.quarantine(url=url, offset=offset, record=record, reason=reason)

    def _at(
        self,
        error: UserCodeFailed | UnsupportedType,
        found: Records,
        index: int,
        records: list[object],
    ) -> UserCodeFailed:
        url, offset = found.place_of(index)
        return UserCodeFailed(
            error.message,
            record=f"record {shown(records[index])}",
            url=url,
            offset=offset,
            where=f"{url} at byte {offset}" if offset >= 0 else url,
        )
