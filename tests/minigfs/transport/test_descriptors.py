"""Open files that travel over Unix sockets arrive in order, once, and leak nowhere."""

import array
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigfs.errors import ProtocolError
from minigfs.ports import SystemClock
from minigfs.transport.bulk_server import BulkServer
from minigfs.transport.client import ConnectionPool
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import Message, Request
from minigfs.transport.security import Security
from minigfs.transport.sockets import UnixLink
from minigfs.transport.stream import Stream

SECURITY = Security(b"a token")


class Lent(Message, frozen=True):
    name: str


class Borrow(Request[Lent], frozen=True, tag="test.borrow"):
    names: tuple[str, ...]
    with_payload: bool = False


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in "abcdefgh":
        (tmp_path / name).write_text(f"file {name}")
    return tmp_path


@pytest.fixture
def all_lent() -> threading.Event:
    """Set when the server has closed its own copies."""
    return threading.Event()


@pytest.fixture(params=["unix", "tcp"])
def address(
    request: pytest.FixtureRequest, files: Path, all_lent: threading.Event
) -> Iterator[str]:
    def lend(asked: Borrow, stream: Stream) -> None:
        for name in asked.names:
            descriptor = os.open(files / name, os.O_RDONLY)
            payload = os.urandom(300_000) if asked.with_payload else b""
            try:
                stream.send(Lent(name=name), payload, descriptor=descriptor)
            finally:
                os.close(descriptor)
        all_lent.set()

    server = BulkServer({Borrow: lend}, SECURITY)
    yield server.start(f"unix:{files}/sock" if request.param == "unix" else "127.0.0.1:0")
    server.stop()


def open_files(directory: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).startswith(str(directory)) for link in links)


@pytest.mark.parametrize("address", ["unix"], indirect=True)
@pytest.mark.parametrize("with_payload", [True, False])
def test_each_message_brings_its_own_file(address: str, with_payload: bool) -> None:
    pool = ConnectionPool(SECURITY)
    with pool.open_stream(address, Borrow(names=tuple("bad"), with_payload=with_payload)) as stream:
        for _ in "bad":
            lent, payload = stream.receive(Lent)
            assert bool(payload) is with_payload
            descriptor = stream.take_descriptor()
            assert descriptor is not None
            assert not os.get_inheritable(descriptor)
            with os.fdopen(descriptor) as file:
                assert file.read() == f"file {lent.name}"
        assert stream.take_descriptor() is None
    pool.close()


@pytest.mark.parametrize("address", ["unix"], indirect=True)
def test_files_that_nobody_takes_are_closed(
    address: str, files: Path, all_lent: threading.Event
) -> None:
    pool = ConnectionPool(SECURITY)
    with pool.open_stream(address, Borrow(names=tuple("abcdefgh"))) as stream:
        for _ in "abcdefgh":
            stream.receive(Lent)
    assert all_lent.wait(10)
    assert open_files(files) <= 4
    pool.close()
    assert open_files(files) == 0


def test_more_files_than_were_expected_at_once_are_closed_as_well(files: Path) -> None:
    """There is room for two where one is expected."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    sent = [os.open(files / name, os.O_RDONLY) for name in "ab"]
    rights = array.array("i", sent)
    there.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    for descriptor in sent:
        os.close(descriptor)
    link = UnixLink(here, "a peer", takes_descriptors=True)
    link.receive_into(memoryview(bytearray(1)), Deadline(SystemClock(), 1_000))
    link.close()
    there.close()
    assert open_files(files) == 0


@pytest.mark.parametrize("address", ["tcp"], indirect=True)
def test_tcp_carries_none_and_says_so(address: str) -> None:
    pool = ConnectionPool(SECURITY)
    with (
        pytest.raises(ProtocolError, match="Unix"),
        pool.open_stream(address, Borrow(names=("a",))) as stream,
    ):
        stream.receive(Lent)
    with pool.open_stream(address, Borrow(names=())) as stream, pytest.raises(ProtocolError):
        stream.take_descriptor()
    pool.close()
