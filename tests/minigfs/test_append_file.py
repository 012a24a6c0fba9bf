"""Mode ``ab``: what was appended once is not appended again by flushing once more."""

from types import SimpleNamespace

import pytest

from minigfs.errors import OutcomeUnknown, Unreachable
from minigfs.fs.append_file import AppendFile, Appends


class FakeAppender:
    """Keeps records; raises what it is told to instead of the record with that number."""

    record_bytes_max = 4

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.failures: dict[int, Exception] = {}
        self.closed_count = 0

    def append(self, record: memoryview) -> int:
        failure = self.failures.pop(len(self.records), None)
        if failure is not None:
            raise failure
        self.records.append(bytes(record))
        return 4 * len(self.records) - 4

    def close(self) -> None:
        self.closed_count += 1


@pytest.fixture
def appender() -> FakeAppender:
    return FakeAppender()


@pytest.fixture
def file(appender: FakeAppender) -> AppendFile:
    client = SimpleNamespace(open_appender=lambda _path: appender)
    return AppendFile(None, "/a", Appends(client, "/a"), 1024)  # type: ignore[arg-type]  # a twin


def test_a_flush_that_failed_goes_on_where_it_stopped(
    file: AppendFile, appender: FakeAppender
) -> None:
    appender.failures = {2: Unreachable("no chunkserver answers")}
    file.write(b"aaaabbbbccccdddd")
    with pytest.raises(Unreachable):
        file.flush()
    assert appender.records == [b"aaaa", b"bbbb"]
    file.close()
    assert appender.records == [b"aaaa", b"bbbb", b"cccc", b"dddd"]


def test_what_may_be_in_the_file_is_not_appended_again(
    file: AppendFile, appender: FakeAppender
) -> None:
    appender.failures = {1: OutcomeUnknown("look before appending it again")}
    file.write(b"aaaabbbbcccc")
    with pytest.raises(OutcomeUnknown):
        file.flush()
    file.close()
    assert appender.records == [b"aaaa"]
    assert appender.closed_count == 1
