"""Writers of a moment cost the masters nothing; those that stay are renewed, held and discarded."""

import queue
from typing import Any

import pytest

from minigfs.client import leases as leases_module
from minigfs.client.leases import WriterLeases
from minigfs.errors import Unreachable
from minigfs.ids import FileId
from minigfs.master.messages import DiscardFile, HoldWriters, RenewWriters

FILE, OTHER = FileId(7), FileId(8)


class Masters:
    """Takes down what it is asked."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call(self, request: Any, *, answer_ms: int = 0) -> None:
        self.asked.put(request)
        if isinstance(request, HoldWriters):
            raise Unreachable("away")

    def change(self, request: Any) -> None:
        self.asked.put(request)

    def next(self, kind: type) -> Any:
        while not isinstance(request := self.asked.get(timeout=5), kind):
            pass
        return request

    def discards_left(self) -> list[DiscardFile]:
        left = [self.asked.get() for _ in range(self.asked.qsize())]
        return [request for request in left if isinstance(request, DiscardFile)]


@pytest.fixture
def masters() -> Masters:
    return Masters()


@pytest.fixture
def leases(masters: Masters, monkeypatch: pytest.MonkeyPatch) -> WriterLeases:
    monkeypatch.setattr(leases_module, "_RENEW_MS", 100)
    return WriterLeases(masters)  # type: ignore[arg-type]  # all it asks of one


def test_an_open_file_is_renewed_and_held_and_a_closed_one_is_not(
    leases: WriterLeases, masters: Masters
) -> None:
    leases.opened(FILE)
    leases.opened(OTHER)
    leases.closed(OTHER)
    renewal = masters.next(RenewWriters)
    assert renewal == RenewWriters(file_ids=(FILE,), holder=leases.holder)
    assert masters.next(HoldWriters) == HoldWriters(holder=leases.holder)


def test_writers_of_a_moment_are_never_spoken_of(leases: WriterLeases, masters: Masters) -> None:
    for number in range(100):
        leases.opened(FileId(number))
        leases.closed(FileId(number))
    with pytest.raises(queue.Empty):
        masters.asked.get(timeout=0.3)


def test_a_writer_is_held_that_opens_after_short_lived_ones(
    leases: WriterLeases, masters: Masters
) -> None:
    leases.opened(FILE)
    leases.closed(FILE)
    with pytest.raises(queue.Empty):
        masters.asked.get(timeout=0.3)
    leases.opened(OTHER)
    assert masters.next(HoldWriters)


def test_an_abandoned_file_is_discarded_once(leases: WriterLeases, masters: Masters) -> None:
    leases.opened(FILE)
    assert leases.abandoned(FILE).wait(5)
    assert masters.next(DiscardFile).file_id == FILE
    assert masters.discards_left() == []
