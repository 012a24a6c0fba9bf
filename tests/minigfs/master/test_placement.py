"""Where replicas go (GFS section 4.2)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.errors import NoSpace, NotEnoughChunkservers
from minigfs.master.placement import Candidate, choose_replica_sets


def candidate(name, host=None, rack="", free=500, recent=0) -> Candidate:
    return Candidate(
        chunkserver_id=name,
        host=host or name,
        rack=rack,
        capacity_bytes=1000,
        free_bytes=free,
        recent_creations=recent,
    )


def choose(candidates, count=1, replication=3, excluded=(), draw=lambda: 0):
    return choose_replica_sets(
        candidates, count=count, replication=replication, excluded=excluded, draw_u64=draw
    )


@given(
    hosts=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xy")), min_size=1),
    replication=st.integers(1, 4),
    draw=st.integers(0, 2**64 - 1),
)
def test_replicas_are_distinct_and_spread_over_as_many_hosts_as_there_are(
    hosts, replication, draw
) -> None:
    servers = [candidate(f"s{i}", host, rack) for i, (host, rack) in enumerate(hosts)]
    (chosen,) = choose(servers, replication=replication, draw=lambda: draw)
    assert len(set(chosen)) == len(chosen) == min(replication, len(servers))
    host_of = {s.chunkserver_id: s.host for s in servers}
    expected_hosts = min(replication, len({h for h, _ in hosts}))
    assert len({host_of[c] for c in chosen}) == expected_hosts


def test_racks_are_spread_when_hosts_are() -> None:
    servers = [candidate(f"s{i}", rack="x") for i in range(5)] + [candidate("far", rack="y")]
    (chosen,) = choose(servers, replication=2)
    assert "far" in chosen


def test_chunks_of_one_request_go_round_the_servers() -> None:
    servers = [candidate(f"s{i}") for i in range(4)]
    sets = choose(servers, count=40, replication=1)
    assert Counter(c for chosen in sets for c in chosen) == {f"s{i}": 10 for i in range(4)}


def test_a_server_with_twice_the_space_gets_twice_the_chunks() -> None:
    servers = [candidate("big", free=800), candidate("small", free=400)]
    sets = choose(servers, count=30, replication=1)
    assert Counter(c for chosen in sets for c in chosen) == {"big": 20, "small": 10}


def test_recent_creations_keep_a_flood_from_the_newcomer() -> None:
    servers = [candidate("old", free=400, recent=2), candidate("new", free=900, recent=50)]
    assert choose(servers, replication=1) == (("old",),)


def test_the_head_of_the_chain_is_drawn() -> None:
    servers = [candidate(f"s{i}") for i in range(3)]
    heads = {choose(servers, draw=lambda d=d: d)[0][0] for d in range(3)}
    assert heads == {"s0", "s1", "s2"}


def test_excluded_and_full_servers_are_not_used() -> None:
    servers = [candidate("a"), candidate("b", free=50), candidate("c")]
    assert choose(servers, excluded=("c",)) == (("a",),)
    with pytest.raises(NoSpace):
        choose(servers, excluded=("a", "c"))
    with pytest.raises(NotEnoughChunkservers):
        choose(servers, excluded=("a", "b", "c"))
    with pytest.raises(NotEnoughChunkservers):
        choose([])
