"""Which replica is asked first."""

from minigfs.client.replica_reads import SuspectServers
from minigfs.ids import ChunkHandle, ChunkserverId, ChunkVersion
from minigfs.master.messages import LocatedChunk, Replica
from tests.sim.clock import SimClock


def chunk(handle: int) -> LocatedChunk:
    return LocatedChunk(
        handle=ChunkHandle(handle),
        version=ChunkVersion(1),
        index=0,
        length_bytes=1,
        digest=0,
        replicas=tuple(
            Replica(chunkserver_id=ChunkserverId(name), address=name, host="h") for name in "abc"
        ),
    )


def order(suspects: SuspectServers, handle: int) -> str:
    return "".join(replica.address for replica in suspects.order(chunk(handle)))


def test_different_chunks_start_at_different_servers() -> None:
    suspects = SuspectServers(SimClock())
    assert [order(suspects, handle) for handle in (3, 4, 5)] == ["abc", "bca", "cab"]


def test_who_failed_comes_last_and_who_failed_last_the_very_last_until_it_is_forgotten() -> None:
    clock = SimClock()
    suspects = SuspectServers(clock)
    suspects.add(ChunkserverId("a"))
    assert order(suspects, 3) == "bca"
    clock.advance(10)
    suspects.add(ChunkserverId("b"))
    suspects.add(ChunkserverId("c"))
    assert order(suspects, 3)[0] == "a"
    clock.advance(10_000)
    assert order(suspects, 3) == "abc"


def test_a_chunk_without_replicas_has_nobody_to_ask() -> None:
    nobody = LocatedChunk(
        handle=ChunkHandle(1),
        version=ChunkVersion(1),
        index=0,
        length_bytes=1,
        digest=0,
        replicas=(),
    )
    assert SuspectServers(SimClock()).order(nobody) == []
