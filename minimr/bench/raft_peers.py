"""The same load on etcd and PySyncObj, three members each, on the same disk in the same run.

etcd is Debian's ``etcd-server``, with its default timeouts, spoken to by gRPC with hand-made
messages; that needs the package ``grpcio``. PySyncObj has no client protocol, so its callers live
inside the leader's process, and it never syncs its journal: its figures are of another kind and are
shown for scale. ``pip install grpcio pysyncobj`` brings both libraries.
"""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from minigfs.cluster.storage import free_loopback_ports
from minigfs.errors import StartFailed, UsageError
from minimr.bench.load import RateFigures, fdatasync_ms, latency_figures
from minimr.bench.raft import COMMAND_BYTES, MASTER_COUNT, RaftFigures, longest_stall_ms

__all__ = ["check_raft_peers", "measure_etcd", "measure_pysyncobj"]

_START_TIMEOUT_S = 20.0
_LOOK_INTERVAL_S = 0.02
_TRY_TIMEOUT_S = 0.25
_KEY_COUNT = 100_000
_VALUE = b"x" * COMMAND_BYTES
_PUT = "/etcdserverpb.KV/Put"
_STATUS = "/etcdserverpb.Maintenance/Status"

_PYSYNCOBJ_MEMBER = """
import json, sys, threading, time
from pysyncobj import SyncObj, SyncObjConf, replicated
me, others, journal, counts, seconds, size = json.loads(sys.argv[1])
class Table(SyncObj):
    def __init__(self):
        super().__init__(me, others, SyncObjConf(
            appendEntriesUseBatch=False, journalFile=journal, commandsQueueSize=1_000_000))
        self.values = {}
    @replicated
    def put(self, key, value):
        self.values[key] = value
table = Table()
while not table.isReady() or table._getLeader() is None:
    time.sleep(0.05)
if table._isLeader():
    results = {}
    for count in counts:
        latencies, done, ends = [], threading.Semaphore(0), time.perf_counter() + seconds
        def send(client, n):
            began = time.perf_counter()
            def answered(_result, error):
                now = time.perf_counter()
                if not error:
                    latencies.append(int((now - began) * 1e9))
                if now < ends:
                    send(client, n + 1)
                else:
                    done.release()
            table.put(f"{client}-{n % 1000}", "x" * size, callback=answered)
        for client in range(count):
            send(client, 0)
        for _ in range(count):
            done.acquire()
        results[count] = latencies
    print(json.dumps(results), flush=True)
while True:
    time.sleep(1)
"""


def check_raft_peers() -> None:
    """``UsageError`` if one of them cannot run here."""
    if shutil.which("etcd") is None:
        raise UsageError("etcd is not installed: `apt install etcd-server`, or leave --peers out")
    libraries = (("grpc", "grpcio"), ("pysyncobj", "pysyncobj"))
    missing = [package for module, package in libraries if find_spec(module) is None]
    if missing:
        raise UsageError(f"--peers needs libraries: `pip install {' '.join(missing)}`")


def measure_etcd(
    counts: Sequence[int], duration_s: float, trials: int, directory: Path | None
) -> RaftFigures:
    """Puts of 256 bytes against the leader, then ``trials`` kills of it."""
    with _etcd_members(directory) as members:
        rates = []
        for count in counts:
            leader = members.leader()
            latencies = asyncio.run(_closed_loop(leader, count, duration_s))
            rates.append(
                RateFigures(
                    clients=count,
                    per_second=round(len(latencies) / duration_s, 1),
                    latency=latency_figures(latencies),
                    fdatasync=fdatasync_ms(members.home),
                )
            )
        stalls = [members.stall_ms() for _ in range(trials)]
    return RaftFigures.of("etcd", rates, stalls)


def measure_pysyncobj(
    counts: Sequence[int], duration_s: float, directory: Path | None
) -> RaftFigures:
    """Rates only; ``counts`` calls outstanding inside the leader."""
    with tempfile.TemporaryDirectory(prefix="minimr-bench-", dir=directory) as home:
        addresses = [f"127.0.0.1:{port}" for port in free_loopback_ports(MASTER_COUNT)]
        members = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _PYSYNCOBJ_MEMBER,
                    json.dumps(
                        [
                            address,
                            [other for other in addresses if other != address],
                            f"{home}/journal-{number}",
                            list(counts),
                            duration_s,
                            COMMAND_BYTES,
                        ]
                    ),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            for number, address in enumerate(addresses)
        ]
        try:
            latencies = json.loads(_first_line(members, len(counts) * (duration_s + 10)))
        finally:
            for member in members:
                member.kill()
                member.communicate()
        rates = [
            RateFigures(
                clients=count,
                per_second=round(len(latencies[str(count)]) / duration_s, 1),
                latency=latency_figures(latencies[str(count)]),
                fdatasync=fdatasync_ms(Path(home)),
            )
            for count in counts
        ]
    return RaftFigures.of("PySyncObj (in the leader, not fsynced)", rates, [])


def _first_line(members: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> bytes:
    """What the member that leads prints; the others print nothing."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for member in members:
            assert member.stdout is not None
            selector.register(member.stdout, selectors.EVENT_READ)
        deadline_s = time.monotonic() + timeout_s + _START_TIMEOUT_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                line: bytes = key.fileobj.readline()  # type: ignore[union-attr]
                if line:
                    return line
                selector.unregister(key.fileobj)
            if not selector.get_map():
                break
    raise StartFailed("PySyncObj gave no figures")


class _EtcdMembers:
    def __init__(self, home: Path) -> None:
        self.home = home
        client_ports = free_loopback_ports(MASTER_COUNT * 2)
        self._clients = [f"127.0.0.1:{port}" for port in client_ports[:MASTER_COUNT]]
        peers = [f"http://127.0.0.1:{port}" for port in client_ports[MASTER_COUNT:]]
        cluster = ",".join(f"m{n}={peer}" for n, peer in enumerate(peers))
        self._commands = [
            ["etcd", f"--name=m{n}", f"--data-dir={home}/m{n}", f"--listen-peer-urls={peers[n]}",
             f"--initial-advertise-peer-urls={peers[n]}",
             f"--listen-client-urls=http://{client}", f"--advertise-client-urls=http://{client}",
             f"--initial-cluster={cluster}", "--initial-cluster-state=new"]
            for n, client in enumerate(self._clients)
        ]  # fmt: skip
        self._processes = [self._start(n) for n in range(MASTER_COUNT)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._commands[number], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def leader(self) -> str:
        """Address of the member that leads, once there is one that all three know."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            states = [_status(address) for address in self._clients]
            leaders = {leader for _, leader in states}
            if len(leaders) == 1 and (leader := leaders.pop()):
                return next(a for a, s in zip(self._clients, states, strict=True) if s[0] == leader)
            time.sleep(_LOOK_INTERVAL_S)
        raise StartFailed("etcd elected no leader")

    def stall_ms(self) -> int:
        number = self._clients.index(self.leader())
        survivors = [a for n, a in enumerate(self._clients) if n != number]
        puts = [_putter(address, 0) for address in survivors]

        def write(n: int) -> None:
            while True:
                for put in puts:
                    try:
                        put(n)
                    except _rpc_error():
                        continue
                    return

        stall_ms = longest_stall_ms(
            write, lambda: self._processes[number].send_signal(signal.SIGKILL)
        )
        self._processes[number].wait()
        self._processes[number] = self._start(number)
        self.leader()
        return stall_ms


@contextmanager
def _etcd_members(directory: Path | None) -> Iterator[_EtcdMembers]:
    with tempfile.TemporaryDirectory(prefix="minimr-bench-", dir=directory) as home:
        members = _EtcdMembers(Path(home))
        try:
            yield members
        finally:
            members.stop()


def _rpc_error() -> type[Exception]:
    import grpc

    error: type[Exception] = grpc.RpcError
    return error


# Clients of one process would share a socket otherwise.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def _call(address: str, method: str) -> Callable[[bytes], bytes]:
    """A unary call on a channel of its own; messages are bytes already."""
    import grpc

    call = grpc.insecure_channel(address, _OPTIONS).unary_unary(method)
    return lambda message: bytes(call(message, timeout=_TRY_TIMEOUT_S))


async def _closed_loop(leader: str, clients: int, duration_s: float) -> list[int]:
    """``load.closed_loop`` on an event loop, which suits gRPC for Python best; nanoseconds."""
    from grpc import aio

    latencies: list[int] = []

    async def run(client: int) -> None:
        async with aio.insecure_channel(leader, _OPTIONS) as channel:
            put = channel.unary_unary(_PUT)
            await put(_put_request(client, 0))
            ready.release()
            await go.wait()
            number = 0
            while (began_ns := time.perf_counter_ns()) < ends_ns:
                number += 1
                await put(_put_request(client, number))
                latencies.append(time.perf_counter_ns() - began_ns)

    ready, go = asyncio.Semaphore(0), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for client in range(clients):
            group.create_task(run(client))
        for _ in range(clients):
            await ready.acquire()
        ends_ns = time.perf_counter_ns() + int(duration_s * 1e9)
        go.set()
    return latencies


def _putter(address: str, client: int) -> Callable[[int], None]:
    put = _call(address, _PUT)

    def send(n: int) -> None:
        put(_put_request(client, n))

    return send


def _put_request(client: int, n: int) -> bytes:
    key = b"%04d-%05d" % (client, n % _KEY_COUNT)
    return _field(1, key) + _field(2, _VALUE)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _status(address: str) -> tuple[int, int]:
    """(id of the member, id of the leader it knows); zeros if it does not answer."""
    try:
        reply = _call(address, _STATUS)(b"")
    except _rpc_error():
        return 0, 0
    fields = dict(_fields(reply))
    header_bytes = fields.get(1, b"")
    header = dict(_fields(header_bytes)) if isinstance(header_bytes, bytes) else {}
    member, leader = header.get(2, 0), fields.get(4, 0)
    return (member, leader) if isinstance(member, int) and isinstance(leader, int) else (0, 0)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a protobuf message that has varints and length-delimited ones only."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            yield tag >> 3, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
