"""The member's own snapshots: what they show, and when."""

from minigfs.replication.jobs import Lane
from minigfs.replication.member import MemberSettings
from tests.minigfs.replication.hub import Hub

EVERY_TEN = MemberSettings(snapshot_every_entries=10, keep_entries=2)


def test_a_snapshot_shows_the_moment_it_was_begun_and_not_the_one_it_was_written() -> None:
    """Its index is of that moment too: with later commands in it, a restart would apply those a
    second time."""
    hub = Hub("a", settings=EVERY_TEN)
    seat = hub.leader()
    seat.held.add(Lane.SNAPSHOT)
    for number in range(15):  # the snapshot is begun at the tenth entry
        hub.ask(b"%d" % number)
    seat.held.clear()
    seat.run_jobs()
    hub.run()
    assert 0 < seat.member.status().snapshot_index <= 11
    hub.crash("a")
    hub.restart("a")
    hub.leader()
    assert hub.converge() == [b"%d" % number for number in range(15)]


def test_a_large_state_is_written_less_often_but_not_for_ever() -> None:
    """One entry for each so many bytes of the last snapshot, ten times as many at most (ADR 4)."""
    settings = MemberSettings(snapshot_every_entries=10, keep_entries=2, snapshot_entry_bytes=64)
    hub = Hub("a", settings=settings)
    seat = hub.leader()
    taken = []
    for number in range(60):  # 1 KiB each: the machine's state is all that it was ever told
        hub.ask(b"%d" % number + bytes(1024))
        hub.run()
        if seat.member.status().snapshot_index not in taken:
            taken.append(seat.member.status().snapshot_index)
    first = next(index for index in taken if index > 0)
    assert first <= 11
    assert taken[-1] == first, "the next one was not due yet"
    for number in range(100):
        hub.ask(b"%d" % number)
        hub.run()
    assert seat.member.status().snapshot_index > first
