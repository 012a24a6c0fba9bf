"""Reading ahead changes when bytes are fetched, never which bytes are returned."""

import threading
import time
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from minigfs.client.read_ahead import ReadAhead

MIB = 1024 * 1024


class Source:
    """A file in memory that counts what is fetched and by whom."""

    def __init__(self, size: int) -> None:
        self.content = bytes(range(256)) * (size // 256 + 1)
        self.size = size
        self.fetched: list[tuple[int, int]] = []
        self.background_count = 0
        self.failures_left = 0

    def fetch(self, offset: int, target: memoryview) -> None:
        self.fetched.append((offset, len(target)))
        if threading.current_thread() is not threading.main_thread():
            self.background_count += 1
            if self.failures_left:
                self.failures_left -= 1
                raise ConnectionError
        target[:] = self.content[offset : offset + len(target)]


def read(ahead: ReadAhead, offset: int, length: int) -> bytes:
    target = bytearray(length)
    ahead.fill(offset, memoryview(target))
    return bytes(target)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6 * MIB), st.integers(1, 2 * MIB)), max_size=8)
)
def test_any_mix_of_reads_returns_the_files_bytes(reads: list[tuple[bool, int, int]]) -> None:
    source = Source(6 * MIB)
    ahead = ReadAhead(source.fetch, source.size)
    position = 0
    for goes_on, jump, wanted in reads:
        offset = min(position if goes_on else jump, source.size - 1)
        position = min(offset + wanted, source.size)
        assert read(ahead, offset, position - offset) == source.content[offset:position]


def test_a_sequential_reader_has_its_bytes_fetched_once_and_ahead() -> None:
    source = Source(20 * MIB)
    ahead = ReadAhead(source.fetch, source.size)
    for offset in range(0, source.size, 256 * 1024):
        read(ahead, offset, 256 * 1024)
    stretches = sorted(source.fetched)
    assert all(a + n == b for (a, n), (b, _) in pairwise(stretches))
    assert sum(n for _, n in stretches) == source.size
    assert source.background_count >= 5
    assert max(n for _, n in stretches) == 4 * MIB


def test_a_reader_that_jumps_about_costs_nothing_extra() -> None:
    source = Source(8 * MIB)
    ahead = ReadAhead(source.fetch, source.size)
    offsets = [5 * MIB, 0, 3 * MIB, MIB]
    for offset in offsets:
        read(ahead, offset, 100)
    assert source.fetched == [(offset, 100) for offset in offsets]


def test_the_first_read_of_a_file_fetches_only_itself() -> None:
    source = Source(8 * MIB)
    read(ReadAhead(source.fetch, source.size), 0, 10)
    assert source.fetched == [(0, 10)]


def test_a_piece_that_could_not_be_fetched_is_fetched_by_the_caller() -> None:
    source = Source(4 * MIB)
    source.failures_left = 100
    ahead = ReadAhead(source.fetch, source.size)
    content = b"".join(read(ahead, offset, 1024) for offset in range(0, 64 * 1024, 1024))
    assert content == source.content[: 64 * 1024]


def test_the_next_piece_is_fetched_while_the_caller_works() -> None:
    source = Source(8 * MIB)
    ahead = ReadAhead(source.fetch, source.size)
    read(ahead, 0, 1024)
    read(ahead, 1024, 1024)
    deadline = time.monotonic() + 5
    while len(source.fetched) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (2048, 512 * 1024) in source.fetched
