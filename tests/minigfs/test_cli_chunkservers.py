"""`admin chunkservers`, `admin rebalance` and `admin report`, as a keeper uses them."""

import json
import os
from pathlib import Path

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout, load_state
from tests.minigfs.conftest import Cli

pytestmark = pytest.mark.e2e

CHUNK = 64 * 1024


def held_counts(layout: ClusterLayout) -> dict[str, int]:
    state = load_state(layout)
    assert state is not None
    return {
        record.name: len(list((layout.directory(record.name) / "chunks").glob("*.chunk")))
        for record in state.with_role("chunkserver")
    }


def held_full_counts(layout: ClusterLayout) -> list[int]:
    """Of full chunks: bytes are evened out, and what is shorter here has next to none."""
    state = load_state(layout)
    assert state is not None
    return [
        sum(file.stat().st_size > CHUNK for file in (layout.directory(r.name) / "chunks").iterdir())
        for r in state.with_role("chunkserver")
    ]


def test_a_cluster_grows_is_evened_out_and_loses_a_server_without_losing_a_byte(
    own_home: Path, cli: Cli
) -> None:
    layout = ClusterLayout(own_home)
    shape = ("--masters", "1", "--chunk-size", "64KiB", "--replication", "2")
    up = cli("up", *shape, "--chunkservers", "3", "--hosts", "3", home=own_home)
    assert up.returncode == 0, up.stderr
    client = MinigfsClient(ClientConfig.discover(home=str(own_home)))
    files = {f"/f{number}": os.urandom(4 * CHUNK + number) for number in range(6)}
    for path, content in files.items():
        with client.open_writer(path) as writer:
            writer.write(content)

    refused = cli("admin", "chunkservers", "decommission", "nobody", home=own_home)
    assert refused.returncode == 2
    assert b"names 0 of the chunkservers" in refused.stderr

    assert cli("up", "--chunkservers", "4", home=own_home).returncode == 0
    assert held_counts(layout)["chunkserver-3"] == 0
    rebalanced = cli("admin", "rebalance", home=own_home)
    assert rebalanced.returncode == 0, rebalanced.stderr
    assert sum(held_counts(layout).values()) == 2 * 29
    full = held_full_counts(layout)
    assert sum(full) == 2 * 24
    assert max(full) - min(full) <= 1

    listed = json.loads(cli("admin", "chunkservers", "list", "--json", home=own_home).stdout)
    assert {server["duty"] for server in listed} == {"serving"}
    assert len({server["host"] for server in listed}) == 3, "the new one has a label as well"
    leaving = next(s for s in listed if Path(s["dir"]).name == "chunkserver-1")
    gone = cli("admin", "chunkservers", "decommission", leaving["address"], home=own_home)
    assert gone.returncode == 0, gone.stderr
    assert b"it can be stopped" in gone.stderr
    counts = held_counts(layout)
    assert counts["chunkserver-1"] == 0
    assert sum(counts.values()) == 2 * 29

    report = json.loads(cli("admin", "report", "--json", home=own_home).stdout)
    assert report["health"]["word"] == "OK"
    assert "decommissioned" in " ".join(report["health"]["notes"])
    assert report["repair"]["missing_bytes"] == 0
    shown = cli("admin", "report", home=own_home).stdout.decode()
    assert "empty" in shown
    assert "health: OK" in shown
    for path, content in files.items():
        assert client.open_reader(path).read_at(0, len(content)) == content

    back = cli("admin", "chunkservers", "recommission", leaving["id"][:6], home=own_home)
    assert back.returncode == 0


def test_the_last_servers_that_are_needed_are_not_let_go(cluster: ClusterLayout, cli: Cli) -> None:
    listed = json.loads(cli("admin", "chunkservers", "list", "--json", home=cluster.home).stdout)
    refused = cli("admin", "chunkservers", "decommission", listed[0]["id"], home=cluster.home)
    assert refused.returncode == 2
    assert b"start another one first" in refused.stderr
    again = json.loads(cli("admin", "chunkservers", "list", "--json", home=cluster.home).stdout)
    assert {server["duty"] for server in again} == {"serving"}
