"""Frames: what goes in comes out, and nothing a peer sends makes us take memory beyond limits."""

import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigfs.config import TransportLimits
from minigfs.errors import FrameTooLarge, NoSpace, ProtocolError, UnknownRequest
from minigfs.master.messages import FileStatus, Find, ListDirectory, Locate, Stat
from minigfs.ports import SystemClock
from minigfs.transport.codec import (
    HEADER_BYTES,
    FrameKind,
    RequestDecoder,
    WireError,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    error_of_body,
)
from minigfs.transport.connection import Connection, ConnectionBroken
from minigfs.transport.deadline import Deadline

LIMITS = TransportLimits(body_bytes_max=4096, payload_bytes_max=8192)


class OneWay:
    """A link that plays bytes back, in pieces of a given size, and collects what is sent."""

    peer = "a recording"

    def __init__(self, data: bytes = b"", piece_bytes: int = 1 << 20) -> None:
        self.sent = bytearray()
        self._data = data
        self._piece_bytes = piece_bytes

    def establish(self, deadline: Deadline) -> None: ...

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        for buffer in buffers:
            self.sent += buffer

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        piece = self._data[: min(self._piece_bytes, buffer.nbytes)]
        buffer[: len(piece)] = piece
        self._data = self._data[len(piece) :]
        return len(piece)

    def is_quiet(self) -> bool:
        return not self._data

    def shutdown(self) -> None: ...

    def close(self) -> None: ...

    def forget(self) -> None: ...


FOR_EVER = Deadline(SystemClock(), None)

frames = st.tuples(
    st.sampled_from(FrameKind),
    st.integers(0, 2**64 - 1),
    st.text(max_size=300),
    st.lists(st.binary(max_size=3000), max_size=2),
)


def encoded(frame: tuple[FrameKind, int, str, list[bytes]]) -> bytes:
    link = OneWay()
    kind, call_id, text, payload = frame
    Connection(link, LIMITS).send(kind, call_id, Stat(path=text), payload, deadline=FOR_EVER)
    return bytes(link.sent)


@given(st.lists(frames, min_size=1, max_size=5), st.sampled_from([1, 7, 100, 1 << 20]))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[tuple[FrameKind, int, str, list[bytes]]], piece_bytes: int
) -> None:
    data = b"".join(encoded(frame) for frame in sent)
    connection = Connection(OneWay(data, piece_bytes), LIMITS)
    for kind, call_id, text, payload in sent:
        frame = connection.receive(deadline=FOR_EVER)
        assert (frame.kind, frame.call_id) == (kind, call_id)
        assert decode_body(frame.body, Stat).path == text
        assert frame.payload == b"".join(payload)
    assert connection.is_quiet()
    with pytest.raises(ConnectionBroken):
        connection.receive(deadline=FOR_EVER)


@given(frames, st.data())
def test_a_frame_cut_short_is_a_broken_connection(
    frame: tuple[FrameKind, int, str, list[bytes]], data: st.DataObject
) -> None:
    whole = encoded(frame)
    cut = data.draw(st.integers(0, len(whole) - 1))
    connection = Connection(OneWay(whole[:cut]), LIMITS)
    with pytest.raises(ConnectionBroken):
        connection.receive(deadline=FOR_EVER)
    assert not connection.usable


@given(st.binary(max_size=200))
def test_garbage_is_refused_within_the_limits(garbage: bytes) -> None:
    connection = Connection(OneWay(garbage), LIMITS)
    # Less than nine headers fit, so the tenth receive at the latest has nothing to give.
    assert len(garbage) < 9 * HEADER_BYTES
    with pytest.raises((ProtocolError, ConnectionBroken)):
        [connection.receive(deadline=FOR_EVER) for _ in range(10)]


@given(frames, st.data())
def test_a_flipped_bit_is_refused_or_gives_a_frame_within_the_limits(
    frame: tuple[FrameKind, int, str, list[bytes]], data: st.DataObject
) -> None:
    damaged = bytearray(encoded(frame))
    bit = data.draw(st.integers(0, HEADER_BYTES * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    connection = Connection(OneWay(bytes(damaged)), LIMITS)
    try:
        received = connection.receive(deadline=FOR_EVER)
    except (ProtocolError, ConnectionBroken):
        return
    assert len(received.body) <= LIMITS.body_bytes_max
    assert received.payload.nbytes <= LIMITS.payload_bytes_max


@pytest.mark.parametrize(
    ("body_bytes", "payload_bytes"), [(4097, 0), (0, 8193), (2**32 - 1, 0), (0, 2**32 - 1)]
)
def test_a_frame_over_the_limits_is_refused_before_memory_is_taken(
    body_bytes: int, payload_bytes: int
) -> None:
    generous = TransportLimits(body_bytes_max=2**32, payload_bytes_max=2**32)
    header = encode_header(FrameKind.REQUEST, 1, body_bytes, payload_bytes, generous)
    connection = Connection(OneWay(header), LIMITS)
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooLarge, match="limit"):
            connection.receive(deadline=FOR_EVER)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000
    with pytest.raises(FrameTooLarge):
        encode_header(FrameKind.REQUEST, 1, body_bytes, payload_bytes, LIMITS)


def test_what_exactly_fills_the_limits_passes() -> None:
    header = encode_header(FrameKind.REQUEST, 1, 4096, 8192, LIMITS)
    assert decode_header(header, LIMITS).payload_bytes == 8192


def test_too_large_a_message_is_refused_before_a_byte_is_sent() -> None:
    link = OneWay()
    connection = Connection(link, LIMITS)
    with pytest.raises(FrameTooLarge):
        connection.send(FrameKind.REQUEST, 1, Stat(path="x" * 5000), deadline=FOR_EVER)
    assert not link.sent
    assert connection.usable


@given(st.binary(max_size=100))
def test_no_body_raises_anything_but_protocol_errors(body: bytes) -> None:
    decoder = RequestDecoder([Stat, Find, Locate, ListDirectory])
    for decode in (decoder.decode, error_of_body, lambda b: decode_body(b, FileStatus)):
        try:
            decode(body)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xdf\xff\xff\xff\xff",  # a map of as many
        b"\x82\xa4type\xa7fs.stat\xa4path\xdb\xff\xff\xff\xff",  # a string of as many bytes
        b"\x91" * 4000,  # deep nesting
    ],
)
def test_a_body_that_promises_the_world_takes_no_memory(bomb: bytes) -> None:
    decoder = RequestDecoder([Stat])
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decoder.decode(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_requests_are_told_apart_by_their_tags() -> None:
    decoder = RequestDecoder([Stat, Find])
    assert decoder.decode(encode_body(Find(path="/a"))) == Find(path="/a")
    assert decoder.decode(encode_body(Stat(path="/a"))) == Stat(path="/a")
    with pytest.raises(UnknownRequest, match=r"fs\.locate"):
        decoder.decode(encode_body(Locate(path="/a")))


def test_an_error_body_is_the_error() -> None:
    error = error_of_body(encode_body(WireError(code=NoSpace.code, message="full")))
    assert type(error) is NoSpace
    assert str(error) == "full"
