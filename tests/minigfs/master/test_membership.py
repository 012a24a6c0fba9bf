"""What heartbeats teach the master, and what it orders (GFS sections 2.6.2, 4.4, 5.2)."""

import itertools

import msgspec
import pytest

from minigfs.ids import ChunkserverId
from minigfs.master import commands
from minigfs.master.health import HealthTally
from minigfs.master.heartbeat_messages import AheadReplica, Heartbeat, ReplicaReport
from minigfs.master.membership import ALIVE_MS, DELETE_ORDERS_MAX, Membership
from tests.minigfs.master.harness import SERVERS

S0, S1, S2 = SERVERS


_reports = itertools.count(1)


def beat(
    chunkserver_id, *, full=False, chunks=(), gone=(), pid=1, cluster="c", report=0, **part
) -> Heartbeat:
    """A full report is a new one, unless it is told which."""
    return Heartbeat(
        chunkserver_id=chunkserver_id,
        cluster_id=cluster,
        address=f"{chunkserver_id}:1",
        host="h",
        rack="",
        pid=pid,
        directory="/d",
        capacity_bytes=1000,
        free_bytes=500,
        chunk_count=len(chunks),
        stored_bytes=0,
        full=full,
        chunks=tuple(chunks),
        gone=tuple(gone),
        report=report or (next(_reports) if full else 0),
        **part,
    )


class Scene:
    """A published file of one chunk on s0 and s1, and chunkservers that say things."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.file_id = driver.write("/f", 100)
        (self.handle,) = driver.state.inodes[self.file_id].chunks
        self.members = Membership()
        self.now_ms = 1_000

    @property
    def chunk(self):
        return self.driver.state.chunks[self.handle]

    def report(self, length_bytes=100, version=1) -> ReplicaReport:
        return ReplicaReport(handle=self.handle, version=version, length_bytes=length_bytes)

    def says(self, chunkserver_id, **fields):
        return self.members.heartbeat(
            beat(chunkserver_id, **fields), self.driver.state, self.now_ms
        )

    def offered(self) -> list[ChunkserverId]:
        servers = self.members.replicas_to_read(self.chunk, self.now_ms)
        return [s.chunkserver_id for s in servers]


@pytest.fixture
def scene(driver) -> Scene:
    return Scene(driver)


def test_a_new_server_is_asked_for_a_full_report_until_it_gives_one(scene) -> None:
    assert scene.says(S0).send_full_report
    assert scene.says(S0).send_full_report
    assert not scene.says(S0, full=True).send_full_report
    assert not scene.says(S0).send_full_report


def test_replicas_of_versions_and_chunks_that_were_never_given_are_set_aside(scene) -> None:
    never_given = ReplicaReport(handle=scene.handle + 1000, version=2, length_bytes=1)
    scene.says(S1, full=True, chunks=[scene.report()])
    scene.says(S0, full=True, chunks=[scene.report(version=7), never_given])
    server = scene.members.server(S0)
    assert scene.members.set_aside_orders(server, scene.driver.state) == (
        AheadReplica(scene.handle, 2),
        AheadReplica(never_given.handle, 1),
    )
    assert scene.offered() == [S1]
    scene.says(S0, gone=[scene.handle, never_given.handle])
    assert scene.members.set_aside_orders(server, scene.driver.state) == ()


def test_a_replica_that_is_ahead_is_not_deleted_when_its_file_is_removed_meanwhile(scene) -> None:
    scene.says(S0, full=True, chunks=[scene.report(version=7)])
    scene.driver.apply(commands.Remove(9, "/f", False))
    scene.members.sweep_garbage(scene.driver.state, scene.now_ms)
    assert scene.says(S0).delete == ()
    server = scene.members.server(S0)
    (order,) = scene.members.set_aside_orders(server, scene.driver.state)
    assert order.handle == scene.handle


def test_what_another_leader_has_given_meanwhile_is_not_set_aside(scene) -> None:
    """The orders are made of the newest state, the report was held against an older one."""
    scene.says(S0, full=True, chunks=[scene.report(version=2)])
    chunk = msgspec.structs.replace(scene.chunk, version=2)
    chunks = scene.driver.state.chunks.set(scene.handle, chunk)
    newest = msgspec.structs.replace(scene.driver.state, chunks=chunks)
    assert scene.members.set_aside_orders(scene.members.server(S0), newest) == ()


def test_a_server_that_was_away_or_restarted_is_asked_again(scene) -> None:
    scene.says(S0, full=True)
    scene.now_ms += ALIVE_MS + 1
    assert scene.says(S0).send_full_report
    assert not scene.says(S0, full=True).send_full_report
    assert scene.says(S0, pid=2).send_full_report


def test_a_full_report_counts_once_its_last_part_is_in(scene) -> None:
    scene.says(S1, full=True, chunks=[scene.report()])
    parts = {"full": True, "report": next(_reports)}
    assert not scene.says(S0, **parts, part=0, more=True).send_full_report
    assert scene.offered() == [S0, S1], "what it has not said yet it may have"
    assert not scene.says(S0, **parts, part=1, more=True).send_full_report
    assert not scene.says(S0, **parts, part=2).send_full_report
    assert scene.offered() == [S1]
    assert not scene.says(S0).send_full_report


def test_a_part_that_arrives_again_and_late_takes_nothing_back(scene) -> None:
    first = {"full": True, "report": next(_reports), "part": 0, "more": True}
    last = {**first, "part": 1, "more": False, "chunks": [scene.report()]}
    for fields in (first, first, last, first, last):
        assert not scene.says(S0, **fields).send_full_report
    assert scene.offered() == [S0]
    scene.says(S0, gone=[scene.handle])
    scene.says(S0, **last)
    assert scene.offered() == []


def test_a_server_is_asked_to_begin_again_when_a_part_is_not_what_this_master_waits_for(
    scene,
) -> None:
    first = {"full": True, "report": next(_reports), "part": 0, "more": True}
    second = {**first, "part": 1}
    assert scene.says(S0, **second).send_full_report, "another master had the part before"
    scene.says(S0, **first)
    assert scene.says(S0).send_full_report, "it owes the rest, and speaks of other things"
    scene.says(S0, **first)
    scene.now_ms += ALIVE_MS + 1
    assert scene.says(S0, **second).send_full_report
    assert not scene.says(S0, full=True).send_full_report


def test_replicas_of_the_set_are_offered_while_their_servers_live_until_a_report_lacks_them(
    scene,
) -> None:
    assert scene.offered() == []
    scene.says(S0)
    scene.says(S1)
    scene.says(S2)
    assert scene.offered() == [S0, S1], "s2 is alive, but did not acknowledge the chunk"
    scene.says(S0, full=True)
    assert scene.offered() == [S1]
    scene.says(S0, chunks=[scene.report()])
    assert scene.offered() == [S0, S1]
    scene.now_ms += ALIVE_MS
    scene.says(S0)
    assert scene.offered() == [S0, S1]
    scene.now_ms += 1
    assert scene.offered() == [S0]


def test_a_replica_reported_gone_is_offered_no_more(scene) -> None:
    scene.says(S0, full=True, chunks=[scene.report()])
    scene.says(S0, gone=[scene.handle])
    assert scene.offered() == []


@pytest.mark.parametrize("fields", [{"length_bytes": 99}, {"version": 2}, {"version": 0}])
def test_a_replica_of_another_length_or_version_counts_as_damaged(scene, fields) -> None:
    scene.says(S1, full=True, chunks=[scene.report()])
    scene.says(S0, full=True, chunks=[scene.report(**fields)])
    assert scene.offered() == [S1]


def test_a_damaged_replica_is_offered_only_when_no_other_is_left(scene) -> None:
    scene.says(S0)
    scene.says(S1)
    scene.members.mark_damaged(scene.handle, S0)
    assert scene.offered() == [S1]
    scene.members.mark_damaged(scene.handle, S1)
    assert scene.offered() == [S0, S1]
    assert scene.members.present_count(scene.chunk, scene.now_ms) == 0


def test_a_chunk_sealed_while_a_full_report_was_under_way_stays_offered(scene) -> None:
    scene.says(S0, full=True)
    scene.members.confirm(scene.chunk, scene.now_ms)
    scene.now_ms += 2_000
    scene.says(S0, full=True)
    assert scene.offered() == [S0]
    scene.now_ms += 29_000
    scene.says(S0, full=True)
    assert scene.offered() == []


def test_only_handles_that_no_file_has_and_that_were_handed_out_are_ordered_deleted(scene) -> None:
    driver = scene.driver
    open_file = driver.open_file()
    (writing,) = driver.allocate(open_file, 0, 1)
    doomed_file = driver.open_file()
    (garbage,) = driver.allocate(doomed_file, 0, 1)
    driver.apply(commands.DiscardFiles(9, (doomed_file,)))
    forgotten_file = driver.open_file()
    (forgotten,) = driver.allocate(forgotten_file, 0, 1)
    driver.apply(commands.DiscardFiles(9, (forgotten_file,)))
    driver.apply(commands.ForgetGarbage(9, (forgotten,)))
    future = driver.state.next_handle
    reports = [
        ReplicaReport(handle=handle, version=1, length_bytes=5)
        for handle in (scene.handle, writing, garbage, forgotten, future, future + 7)
    ]
    for full in (True, False):
        assert scene.says(S0, full=full, chunks=reports).delete == (garbage, forgotten)
    assert scene.says(S0, gone=[garbage]).delete == (forgotten,)
    assert scene.says(S0, gone=[forgotten]).delete == ()


def test_chunks_of_a_removed_file_are_ordered_deleted_and_then_forgotten(scene) -> None:
    scene.says(S0, full=True, chunks=[scene.report()])
    scene.says(S1, full=True, chunks=[scene.report()])
    scene.driver.apply(commands.Remove(9, "/f", False))
    state = scene.driver.state
    assert scene.members.sweep_garbage(state, scene.now_ms) == ()
    assert scene.says(S0).delete == (scene.handle,)
    assert scene.says(S0, gone=[scene.handle]).delete == ()
    assert scene.members.sweep_garbage(state, scene.now_ms) == (), "s1 still holds it"
    assert scene.says(S1, gone=[scene.handle]).delete == ()
    assert scene.members.sweep_garbage(state, scene.now_ms) == (scene.handle,)


def test_garbage_waits_for_the_full_report_of_a_live_server_but_not_for_a_dead_one(scene) -> None:
    scene.says(S0)
    scene.driver.apply(commands.Remove(9, "/f", False))
    state = scene.driver.state
    assert scene.members.sweep_garbage(state, scene.now_ms) == ()
    scene.now_ms += ALIVE_MS + 1
    assert scene.members.sweep_garbage(state, scene.now_ms) == (scene.handle,)
    scene.driver.apply(commands.ForgetGarbage(9, (scene.handle,)))
    reply = scene.says(S0, full=True, chunks=[scene.report()])
    assert reply.delete == (scene.handle,), "it comes up again when the server comes back"


def test_delete_orders_are_bounded_and_come_again_until_done(scene) -> None:
    driver = scene.driver
    file_id = driver.open_file()
    handles = driver.allocate(file_id, 0, DELETE_ORDERS_MAX + 5)
    driver.apply(commands.DiscardFiles(9, (file_id,)))
    driver.apply(commands.Reap(9))
    reports = [ReplicaReport(handle=h, version=1, length_bytes=5) for h in handles]
    first = scene.says(S0, full=True, chunks=reports).delete
    assert len(first) == DELETE_ORDERS_MAX
    assert scene.says(S0).delete == first
    rest = scene.says(S0, gone=first).delete
    assert sorted((*first, *rest)) == sorted(handles)


def health(scene, *, replication=2, may_still_report=False):
    tally = HealthTally()
    for chunk in scene.driver.state.chunks.values():
        tally.add(chunk, scene.members, scene.now_ms)
    return tally.verdict(
        alive_count=scene.members.alive_count(scene.now_ms),
        replication=replication,
        may_still_report=may_still_report,
    )


def test_health_names_the_worst_that_is_true(scene) -> None:
    scene.driver.allocate(scene.driver.open_file(), 0, 1)  # being written: it does not matter
    assert health(scene, may_still_report=True)[0] == "DEGRADED"
    assert "waiting for chunkservers" in health(scene, may_still_report=True)[1]
    assert health(scene)[0] == "LOST"
    scene.says(S0)
    assert health(scene)[0] == "DATA_AT_RISK"
    scene.says(S1)
    assert health(scene)[0] == "DEGRADED", "the file asks for three replicas"
    scene.says(S2)


def test_health_is_ok_when_every_chunk_has_its_goal_and_degraded_when_new_ones_would_not(
    driver,
) -> None:
    file_id = driver.apply(commands.CreateFile(1, "/g", False, 2)).file_id
    driver.allocate(file_id, 0, 1)
    driver.apply(driver.publish_command(file_id, "/g", 10))
    members, tally = Membership(), HealthTally()
    for server in (S0, S1):
        members.heartbeat(beat(server), driver.state, 0)
    for chunk in driver.state.chunks.values():
        tally.add(chunk, members, 0)
    args = {"alive_count": 2, "may_still_report": False}
    assert tally.verdict(replication=2, **args) == ("OK", ())
    assert tally.verdict(replication=3, **args)[0] == "DEGRADED"


def test_an_old_replica_beside_the_set_is_a_stray_and_a_newer_one_is_left_alone(scene) -> None:
    old, newer = scene.report(version=0), scene.report(version=2)
    scene.says(S2, full=True, chunks=[old])
    assert scene.handle in scene.members.server(S2).strays
    scene.says(S2, full=True, chunks=[newer])
    assert scene.handle not in scene.members.server(S2).strays


def test_a_server_without_space_is_named_and_makes_the_cluster_degraded() -> None:
    word, reasons = HealthTally().verdict(
        alive_count=3, replication=3, may_still_report=False, full=["here:1"]
    )
    assert word == "DEGRADED"
    assert reasons == ("chunkserver here:1 has a full disk: it takes no data",)
