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
