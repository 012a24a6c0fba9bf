"""The storage part of a cluster on this machine: its shape, its command lines, its readiness."""

import itertools
import random
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import msgspec

from minigfs.cluster.layout import ClusterLayout
from minigfs.cluster.masters import found_masters
from minigfs.cluster.processes import ProcessKind, running_pid
from minigfs.cluster.state import ClusterState, ProcessRecord, Rates, load_state, save_state
from minigfs.config import (
    DEFAULT_CHUNK_BYTES,
    DEFAULT_REPLICATION,
    MIN_CHUNK_BYTES,
)
from minigfs.errors import InvalidConfig, StartFailed
from minigfs.transport.security import TlsFiles, create_token

__all__ = [
    "STORAGE_KINDS",
    "StorageShape",
    "await_storage",
    "chunkserver_arguments",
    "free_loopback_ports",
    "master_arguments",
    "plan_storage",
    "prepare_storage",
    "python_program",
    "tls_arguments",
]

DEFAULT_MASTER_COUNT = 3  # one may die, or be restarted, and nobody notices
MASTER_COUNT_MAX = 7  # each more costs every change a copy, and two more survive one more death
DEFAULT_CHUNKSERVER_COUNT = 3
CHUNKSERVER_COUNT_MAX = 64  # all on one machine; more is a slip of the finger
_REPORT_INTERVAL_MS = 20  # between two looks at who has registered
_PORTS = range(20_000, 32_000)  # below the range the kernel lends to outgoing connections


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageShape:
    """What `up` was asked for; None means what the cluster has, or the default for a new one."""

    masters: int | None = None
    chunkservers: int | None = None
    replication: int | None = None
    chunk_bytes: int | None = None
    hosts: int | None = None
    tls: TlsFiles | None = None  # what all servers show; changed only while none of them runs
    rates: Rates = field(default_factory=Rates)  # for the processes that are started from now on


def prepare_storage(layout: ClusterLayout, shape: StorageShape) -> ClusterState:
    """The cluster of this home, planned and saved if it is new or grows, its masters' directories
    made; nothing is started.

    Call it with the layout locked. `InvalidConfig` if the shape is impossible or contradicts what
    was fixed when the cluster was made.
    """
    before = load_state(layout)
    _check_tls(before, shape)
    state = plan_storage(before, shape, cluster_id=secrets.token_hex(8), ports=free_loopback_ports)
    layout.make()
    if not layout.token_file.exists():
        fresh = layout.token_file.with_name(".token.new")
        fresh.unlink(missing_ok=True)
        create_token(fresh)
        fresh.replace(layout.token_file)  # whole or not at all
    save_state(layout, state)
    return found_masters(layout, state)


def plan_storage(
    state: ClusterState | None,
    shape: StorageShape,
    *,
    cluster_id: str,
    ports: Callable[[int], list[int]],
) -> ClusterState:
    """The state that fulfils ``shape``; ``cluster_id`` is for a new cluster, ``ports`` finds
    free ones. A cluster may gain masters and chunkservers and change its rates and TLS files; all
    else is fixed."""
    _check_shape(shape)
    if state is None:
        server_count = shape.chunkservers or DEFAULT_CHUNKSERVER_COUNT
        state = ClusterState(
            cluster_id=cluster_id,
            chunk_bytes=shape.chunk_bytes or DEFAULT_CHUNK_BYTES,
            replication=shape.replication or min(DEFAULT_REPLICATION, server_count),
            processes=_masters(range(shape.masters or DEFAULT_MASTER_COUNT), joins=False),
        )
    else:
        server_count = shape.chunkservers or len(state.with_role("chunkserver"))
        _check_unchanged(state, shape)
    if state.replication > server_count:
        raise InvalidConfig(
            f"--replication {state.replication} needs as many chunkservers, "
            f"not {server_count}: add --chunkservers {state.replication}"
        )
    state = _with_more_masters(_with_rates(state, shape.rates), shape.masters)
    state = msgspec.structs.replace(state, tls=shape.tls or state.tls)
    known_hosts = {record.host for record in state.with_role("chunkserver") if record.host}
    hosts = shape.hosts or len(known_hosts) or None
    added = [
        ProcessRecord(
            name=f"chunkserver-{number}",
            role="chunkserver",
            host=f"host-{number % hosts}" if hosts is not None else "",
        )
        for number in range(len(state.with_role("chunkserver")), server_count)
    ]
    return _with_addresses(state.with_processes(added), ports)


def _masters(numbers: Iterable[int], *, joins: bool) -> tuple[ProcessRecord, ...]:
    return tuple(
        ProcessRecord(name=f"master-{number}", role="master", joins=joins) for number in numbers
    )


def _with_rates(state: ClusterState, asked: Rates) -> ClusterState:
    changed = {name: value for name, value in msgspec.structs.asdict(asked).items() if value}
    return msgspec.structs.replace(state, rates=msgspec.structs.replace(state.rates, **changed))


def _with_more_masters(state: ClusterState, asked: int | None) -> ClusterState:
    present = state.with_role("master")
    taken = {record.name for record in present}
    if asked is None or asked <= len(present):
        return state
    numbers = (number for number in itertools.count() if f"master-{number}" not in taken)
    return state.with_processes(
        _masters(itertools.islice(numbers, asked - len(present)), joins=True)
    )


def _check_shape(shape: StorageShape) -> None:
    for option, value, low, high in (
        ("--masters", shape.masters, 1, MASTER_COUNT_MAX),
        ("--chunkservers", shape.chunkservers, 1, CHUNKSERVER_COUNT_MAX),
        ("--replication", shape.replication, 1, CHUNKSERVER_COUNT_MAX),
        ("--hosts", shape.hosts, 1, CHUNKSERVER_COUNT_MAX),
    ):
        if value is not None and not low <= value <= high:
            raise InvalidConfig(f"{option} {value}: give a number from {low} to {high}")
    if shape.chunk_bytes is not None and shape.chunk_bytes < MIN_CHUNK_BYTES:
        raise InvalidConfig(
            f"--chunk-size {shape.chunk_bytes}: a chunk has at least {MIN_CHUNK_BYTES} bytes (1KiB)"
        )


def _check_tls(state: ClusterState | None, shape: StorageShape) -> None:
    if state is None or shape.tls is None or shape.tls == state.tls:
        return
    if any(map(running_pid, state.processes)):
        raise InvalidConfig(
            "the cluster runs with other TLS files, or with none, and what starts with these could "
            "not speak to what runs: stop it first (`down`)"
        )


def _check_unchanged(state: ClusterState, shape: StorageShape) -> None:
    servers = state.with_role("chunkserver")
    for option, asked, present in (
        ("--replication", shape.replication, state.replication),
        ("--chunk-size", shape.chunk_bytes, state.chunk_bytes),
        ("--hosts", shape.hosts, len({server.host for server in servers})),
    ):
        if asked is not None and asked != present:
            raise InvalidConfig(
                f"{option} {asked}: this cluster was made with {present}, and it is fixed; "
                f"leave {option} out, or make another cluster with --dir"
            )
    master_count = len(state.with_role("master"))
    if shape.masters is not None and shape.masters < master_count:
        raise InvalidConfig(
            f"--masters {shape.masters}: this cluster has {master_count}; `admin masters remove` "
            "takes one away"
        )
    if shape.chunkservers is not None and shape.chunkservers < len(servers):
        raise InvalidConfig(
            f"--chunkservers {shape.chunkservers}: this cluster has {len(servers)}, and taking "
            f"one away would lose its replicas"
        )


def _with_addresses(state: ClusterState, ports: Callable[[int], list[int]]) -> ClusterState:
    unplaced = [
        record
        for record in (*state.with_role("master"), *state.with_role("chunkserver"))
        if not record.address
    ]
    return state.with_processes(
        msgspec.structs.replace(record, address=f"127.0.0.1:{port}")
        for record, port in zip(unplaced, ports(len(unplaced)), strict=True)
    )


def free_loopback_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now, outside the range of outgoing connections."""
    found: list[int] = []
    candidates = iter(random.SystemRandom().sample(_PORTS, len(_PORTS)))
    with ExitStack() as held:
        while len(found) < count:
            port = next(candidates, None)
            if port is None:
                raise StartFailed(
                    f"no {count} free ports between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1"
                )
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def python_program(module: str) -> list[str]:
    """Run a module by this very interpreter, never finding modules in the working directory."""
    return [sys.executable, "-P", "-m", module]


def master_arguments(
    layout: ClusterLayout, state: ClusterState, record: ProcessRecord
) -> list[str]:
    """Arguments of ``serve master`` (minigfs's or minimr's) for a record of this cluster."""
    others = (address for address in state.masters if address != record.address)
    return [
        *_server_arguments(layout, state, record),
        *((f"--join={address}" for address in others) if record.joins else ["--founded"]),
        f"--chunk-size={state.chunk_bytes}",
        f"--replication={state.replication}",
        *_given("--repair-rate", state.rates.repair_bytes_per_second),
    ]


def chunkserver_arguments(
    layout: ClusterLayout, state: ClusterState, record: ProcessRecord
) -> list[str]:
    """Arguments of ``serve chunkserver`` for a record of this cluster."""
    return [
        *_server_arguments(layout, state, record),
        *(f"--join={address}" for address in state.masters),
        *([f"--host-label={record.host}"] if record.host else []),
        *([f"--rack={record.rack}"] if record.rack else []),
        *_given("--scrub-rate", state.rates.scrub_bytes_per_second),
        *_given("--scrub-days", state.rates.scrub_days),
    ]


def _given(option: str, value: float | None) -> list[str]:
    return [] if value is None else [f"{option}={value}"]


def _server_arguments(
    layout: ClusterLayout, state: ClusterState, record: ProcessRecord
) -> list[str]:
    return [
        f"--dir={layout.directory(record.name)}",
        f"--listen={record.address}",
        f"--cluster-id={state.cluster_id}",
        f"--token-file={layout.token_file}",
        *tls_arguments(state.tls),
    ]


def tls_arguments(files: TlsFiles | None) -> list[str]:
    """The options of a server that name its TLS files."""
    if files is None:
        return []
    return [
        f"--tls-ca={files.ca}",
        f"--tls-certificate={files.certificate}",
        f"--tls-key={files.key}",
    ]


STORAGE_KINDS: Mapping[str, ProcessKind] = {
    "master": ProcessKind(
        command=lambda *of: [*python_program("minigfs"), "serve", "master", *master_arguments(*of)]
    ),
    "chunkserver": ProcessKind(
        command=lambda *of: [
            *python_program("minigfs"),
            "serve",
            "chunkserver",
            *chunkserver_arguments(*of),
        ]
    ),
}


def await_storage(layout: ClusterLayout, state: ClusterState, *, timeout_ms: int = 15_000) -> None:
    """Wait until the master has heard of every chunkserver that runs here.

    `StartFailed` names those it has not heard of in time.
    """
    from minigfs.client.client import MinigfsClient
    from minigfs.client.config import ClientConfig

    deadline_ns = time.monotonic_ns() + timeout_ms * 1_000_000
    client = MinigfsClient(ClientConfig.discover(home=str(layout.home)))
    expected = {record.address: record.name for record in state.with_role("chunkserver")}
    while True:
        alive = {server.address for server in client.report().chunkservers if server.alive}
        unheard = [name for address, name in expected.items() if address not in alive]
        if not unheard:
            return
        if time.monotonic_ns() >= deadline_ns:
            raise StartFailed(
                f"the master has not heard of {', '.join(unheard)} in {timeout_ms // 1000} s: "
                f"see {layout.logs}"
            )
        # Chunkservers speak to the master, not to us: who has registered can only be asked.
        time.sleep(_REPORT_INTERVAL_MS / 1000)
