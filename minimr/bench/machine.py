"""What the machine itself can do, measured beside whatever is to be judged by it.

Single-threaded, and with the memory that a program really touches: the rates are what one process
of ours could reach at best, not what a data sheet says.
"""

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

__all__ = ["MachineLimits", "measure_machine"]

_MIB = 1 << 20
_PIECE_BYTES = 4 * _MIB
_BLOCK_BYTES = 64 << 10  # one sum each, as chunks have


class MachineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes per second."""

    disk_write: float
    """A new file, written in large pieces and synced at its end."""
    disk_read: float
    """A file of which the page cache holds nothing."""
    file_read: float
    """A file that the page cache holds."""
    file_read_and_verify: float
    """The same, with an xxh3-64 sum of every 64 KiB."""
    memory_copy: float
    hash: float
    loopback: float
    """One TCP connection within the machine, received into one buffer."""


def measure_machine(directory: Path | None, size_bytes: int) -> MachineLimits:
    """Files of ``size_bytes`` below ``directory`` (default: the system's for temporaries)."""
    from xxhash import xxh3_64_intdigest

    piece = bytearray(os.urandom(_MIB)) * (_PIECE_BYTES // _MIB)
    view, target = memoryview(piece), bytearray(_PIECE_BYTES)
    pieces = max(1, size_bytes // _PIECE_BYTES)

    def sums() -> None:
        for start in range(0, _PIECE_BYTES, _BLOCK_BYTES):
            xxh3_64_intdigest(view[start : start + _BLOCK_BYTES])

    def copy() -> None:
        target[:] = piece

    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:

        def write() -> None:
            file.seek(0)
            file.truncate()
            for _ in range(pieces):
                file.write(piece)
            os.fsync(file.fileno())

        def read(then: Callable[[], None]) -> None:
            for number in range(pieces):
                os.preadv(file.fileno(), [piece], number * _PIECE_BYTES)
                then()

        total = pieces * _PIECE_BYTES
        disk_write = total / _best(write)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        disk_read = total / _seconds(lambda: read(lambda: None))
        file_read = total / _best(lambda: read(lambda: None))
        verified = total / _best(lambda: read(sums))
    return MachineLimits(
        disk_write=disk_write,
        disk_read=disk_read,
        file_read=file_read,
        file_read_and_verify=verified,
        memory_copy=_PIECE_BYTES / _best(copy, times=20),
        hash=_PIECE_BYTES / _best(sums, times=20),
        loopback=_loopback(view, pieces),
    )


def _loopback(piece: memoryview, pieces: int) -> float:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            with socket.create_connection(server.getsockname()) as sock:
                for _ in range(pieces):
                    sock.sendall(piece)

        sender = threading.Thread(target=send)
        sender.start()
        connection, _ = server.accept()
        target = bytearray(_PIECE_BYTES)

        def receive() -> None:
            with connection:
                while connection.recv_into(target):
                    pass

        seconds = _seconds(receive)
        sender.join()
    return pieces * len(piece) / seconds


def _best(work: Callable[[], None], times: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    return min(_seconds(work) for _ in range(times))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
