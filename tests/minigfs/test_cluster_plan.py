"""What `up` makes of its options: a new cluster, the same one again, a larger one, an error."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from minigfs.client.config import ClientConfig
from minigfs.cluster import (
    ClusterLayout,
    ClusterState,
    ProcessRecord,
    load_state,
    save_state,
    storage,
)
from minigfs.cluster.state import Rates
from minigfs.cluster.storage import (
    STORAGE_KINDS,
    StorageShape,
    free_loopback_ports,
    plan_storage,
    prepare_storage,
)
from minigfs.errors import InvalidConfig
from minigfs.transport.security import TlsFiles

MIB = 1024 * 1024


def plan(before: ClusterState | None = None, /, **shape: Any) -> ClusterState:
    used = 0 if before is None else len(before.processes)
    return plan_storage(
        before,
        StorageShape(**shape),
        cluster_id="c1",
        ports=lambda count: [7000 + used + number for number in range(count)],
    )


def test_a_new_cluster_has_the_papers_defaults() -> None:
    state = plan()
    assert (state.chunk_bytes, state.replication) == (64 * MIB, 3)
    assert [(record.name, record.address) for record in state.processes] == [
        ("master-0", "127.0.0.1:7000"),
        ("master-1", "127.0.0.1:7001"),
        ("master-2", "127.0.0.1:7002"),
        ("chunkserver-0", "127.0.0.1:7003"),
        ("chunkserver-1", "127.0.0.1:7004"),
        ("chunkserver-2", "127.0.0.1:7005"),
    ]
    assert state.masters == ("127.0.0.1:7000", "127.0.0.1:7001", "127.0.0.1:7002")


def test_planning_again_changes_nothing() -> None:
    state = plan(chunkservers=4, hosts=2, replication=2, chunk_bytes=MIB)
    assert plan(state) == state
    assert plan(state, chunkservers=4, hosts=2, replication=2, chunk_bytes=MIB) == state


def test_tls_files_are_kept_and_told_to_servers_and_clients(tmp_path: Path) -> None:
    files = TlsFiles(ca="/tls/ca.pem", certificate="/tls/server.pem", key="/tls/key.pem")
    layout = ClusterLayout(tmp_path / "home")
    with layout.locked():
        prepare_storage(layout, StorageShape(tls=files))
        state = prepare_storage(layout, StorageShape())
    assert state.tls == files
    for role in ("master", "chunkserver"):
        record = state.with_role(role)[0]
        assert {
            "--tls-ca=/tls/ca.pem",
            "--tls-certificate=/tls/server.pem",
            "--tls-key=/tls/key.pem",
        } <= set(STORAGE_KINDS[role].command(layout, state, record))
    assert ClientConfig.discover(home=str(layout.home)).tls_ca == "/tls/ca.pem"


def test_tls_files_change_only_while_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = TlsFiles(ca="/one.pem"), TlsFiles(ca="/other.pem")
    layout = ClusterLayout(tmp_path / "home")
    with layout.locked():
        prepare_storage(layout, StorageShape())
        for files in (one, other):
            assert prepare_storage(layout, StorageShape(tls=files)).tls == files
        monkeypatch.setattr(storage, "running_pid", lambda record: 1)
        assert prepare_storage(layout, StorageShape(tls=other)).tls == other
        with pytest.raises(InvalidConfig, match="stop it first"):
            prepare_storage(layout, StorageShape(tls=one))


def test_rates_are_kept_told_to_the_servers_and_can_be_changed(tmp_path: Path) -> None:
    asked = Rates(repair_bytes_per_second=10 * MIB, scrub_days=3.5)
    state = plan(plan(rates=asked), rates=Rates(scrub_bytes_per_second=MIB))
    assert state.rates == Rates(
        repair_bytes_per_second=10 * MIB, scrub_bytes_per_second=MIB, scrub_days=3.5
    )
    layout = ClusterLayout(tmp_path / "home")
    layout.make()
    save_state(layout, state)
    assert load_state(layout) == state
    for kind, options in (
        ("master", {f"--repair-rate={10 * MIB}"}),
        ("chunkserver", {f"--scrub-rate={MIB}", "--scrub-days=3.5"}),
    ):
        command = STORAGE_KINDS[kind].command(layout, state, state.record(f"{kind}-0"))
        assert {option for option in command if "-rate=" in option or "-days=" in option} == options


def test_a_cluster_grows_and_keeps_its_addresses() -> None:
    small = plan(chunkservers=2, masters=1)
    large = plan(small, chunkservers=4)
    assert large.processes[:3] == small.processes
    assert [record.address for record in large.processes[3:]] == [
        "127.0.0.1:7003",
        "127.0.0.1:7004",
    ]


def test_masters_of_the_beginning_found_the_group_and_later_ones_join_it() -> None:
    larger = plan(plan(masters=1), masters=3)
    assert [record.joins for record in larger.with_role("master")] == [False, True, True]
    fewer = larger.without("master-1")
    again = plan(fewer, masters=3)
    assert {record.name for record in again.with_role("master")} == {
        "master-0",
        "master-1",
        "master-2",
    }
    with pytest.raises(InvalidConfig, match="admin masters remove"):
        plan(larger, masters=1)


def test_a_founder_never_starts_on_an_empty_directory_and_a_newcomer_knows_whom_to_ask() -> None:
    state = plan(plan(masters=1), masters=2)
    layout = ClusterLayout(Path("/home"))
    founder, newcomer = (
        STORAGE_KINDS["master"].command(layout, state, record)
        for record in state.with_role("master")
    )
    assert "--founded" in founder
    assert f"--join={state.masters[0]}" in newcomer
    assert "--founded" not in newcomer


def test_few_chunkservers_mean_few_replicas_unless_more_are_asked_for() -> None:
    assert plan(chunkservers=1).replication == 1
    with pytest.raises(InvalidConfig, match="--chunkservers 3"):
        plan(chunkservers=2, replication=3)


def test_hosts_spread_the_chunkservers_over_labels() -> None:
    state = plan(chunkservers=5, hosts=2)
    assert [record.host for record in state.with_role("chunkserver")] == [
        "host-0",
        "host-1",
        "host-0",
        "host-1",
        "host-0",
    ]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"masters": 8}, "--masters 8"),
        ({"chunk_bytes": 3}, "at least 1024 bytes"),
        ({"chunkservers": 0}, "--chunkservers 0"),
        ({"replication": 0}, "--replication 0"),
        ({"hosts": -1}, "--hosts -1"),
        ({"chunkservers": 1000}, "--chunkservers 1000"),
    ],
)
def test_impossible_shapes_are_refused(shape: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        plan(None, **shape)


@pytest.mark.parametrize(
    "shape", [{"chunk_bytes": MIB}, {"replication": 2}, {"chunkservers": 2}, {"hosts": 2}]
)
def test_what_is_fixed_cannot_be_changed_later(shape: dict[str, int]) -> None:
    with pytest.raises(InvalidConfig, match="this cluster"):
        plan(plan(), **shape)


def test_records_and_settings_of_other_packages_are_kept(tmp_path: Path) -> None:
    layout = ClusterLayout(tmp_path / "home")
    with layout.locked():
        state = prepare_storage(layout, StorageShape(chunkservers=2))
        worker = ProcessRecord(name="worker-0", role="worker", stage=1)
        save_state(layout, state.with_processes([worker]).with_settings({"memory_bytes": 1}))
        again = prepare_storage(layout, StorageShape(chunkservers=3))
    assert again.record("worker-0") == worker
    assert again.settings == {"memory_bytes": 1}
    assert load_state(layout) == again


def test_the_first_start_makes_a_private_token_that_later_ones_keep(tmp_path: Path) -> None:
    layout = ClusterLayout(tmp_path / "home")
    prepare_storage(layout, StorageShape())
    token = layout.token_file.read_bytes()
    assert layout.token_file.stat().st_mode & 0o777 == 0o600
    assert layout.home.stat().st_mode & 0o777 == 0o700
    prepare_storage(layout, StorageShape())
    assert layout.token_file.read_bytes() == token
    client = msgspec.json.decode(layout.client_file.read_bytes())
    assert client["token_file"] == str(layout.token_file)


def test_the_token_is_never_on_a_command_line(tmp_path: Path) -> None:
    layout = ClusterLayout(tmp_path / "home")
    state = prepare_storage(layout, StorageShape())
    token = layout.token_file.read_text().strip()
    for record in state.processes:
        assert token not in " ".join(STORAGE_KINDS[record.role].command(layout, state, record))


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 1, "cluster_id": 3}', b"\xff"])
def test_a_damaged_state_file_is_named(tmp_path: Path, content: bytes) -> None:
    layout = ClusterLayout(tmp_path)
    layout.state_file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"cluster\.json"):
        load_state(layout)


def test_free_ports_are_different_and_not_lent_to_outgoing_connections() -> None:
    ports = free_loopback_ports(50)
    lent_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 50
    assert all(1024 < port < lent_from for port in ports)
