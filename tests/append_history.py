"""What appenders did, and whether a file agrees with it.

Each record says who made it, which one it is, how long it is and the sum of its content: one
that is torn, repeated or out of order is told from any other, wherever it lies.
"""

import random
import re
import threading
from collections import Counter
from dataclasses import dataclass, field

from xxhash import xxh3_64_hexdigest

__all__ = ["AppendHistory", "make_record"]

_RECORD = re.compile(rb"<(\d+):(\d+):(\d+):([0-9a-f]{16})>")


def make_record(appender: int, number: int, length: int) -> bytes:
    content = random.Random(appender * 1_000_003 + number).randbytes(length)
    return b"<%d:%d:%d:%s>" % (appender, number, length, xxh3_64_hexdigest(content).encode()) + (
        content
    )


@dataclass
class AppendHistory:
    """Thread-safe. Records are numbered by their appenders, in the order they begin them."""

    acknowledged: dict[tuple[int, int], int] = field(default_factory=dict)  # at which offset
    unknown: set[tuple[int, int]] = field(default_factory=set)
    refused: set[tuple[int, int]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, content: bytes) -> None:
        """Every acknowledged record is there once and where it was said to be; none is torn; those
        of one appender are in their order, also those whose outcome it does not know; nothing else
        is there."""
        found = parse(content)
        counts = Counter(key for _, key in found)
        assert all(count == 1 for count in counts.values()), counts.most_common(3)
        places = {key: offset for offset, key in found}
        for key, offset in self.acknowledged.items():
            assert places.get(key) == offset, f"record {key}: {places.get(key)}, not {offset}"
        strangers = set(places) - set(self.acknowledged) - self.unknown
        assert not strangers, f"refused, and there: {strangers}"
        last: dict[int, int] = {}
        for _, (appender, number) in found:
            assert number > last.get(appender, -1), f"appender {appender} out of order"
            last[appender] = number


def parse(content: bytes) -> list[tuple[int, tuple[int, int]]]:
    """The records of a file, one after the other, with their offsets; nothing may be between."""
    found: list[tuple[int, tuple[int, int]]] = []
    offset = 0
    while offset < len(content):
        head = _RECORD.match(content, offset)
        assert head is not None, f"no record begins at {offset}: {content[offset : offset + 40]!r}"
        appender, number, length = (int(part) for part in head.group(1, 2, 3))
        body = content[head.end() : head.end() + length]
        assert xxh3_64_hexdigest(body).encode() == head.group(4), f"torn at {offset}"
        found.append((offset, (appender, number)))
        offset = head.end() + length
    return found
