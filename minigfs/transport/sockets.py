"""Links over the operating system's sockets.

Each operation keeps its own deadline even when one thread sends while another receives. A socket's
own timeout (one for both) cannot do that, so sending never blocks: it is tried, and waited for only
when it cannot go on. Receiving waits in the kernel, whose time limit is of receiving alone: one
system call where a try, a poll and a second try would each give the interpreter's lock away.
"""

import array
import contextlib
import ctypes
import os
import select
import socket
import ssl
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from minigfs.transport.address import Address
from minigfs.transport.deadline import Deadline

__all__ = ["SocketLink", "SocketListener", "TlsLink", "UnixLink"]

SHORT_SEND_BYTES = 4096
_SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
BUFFERS_PER_SEND_MAX = 512  # below IOV_MAX (1024 on Linux) with room
TLS_WRITE_BYTES = 256 * 1024  # how long one write may keep a reader of the same link waiting
_TCP_INFO_BYTES = 136  # of linux/tcp.h, from tcpi_state to tcpi_bytes_received
_TCP_ESTABLISHED = b"\1"
UNTAKEN_DESCRIPTORS_MAX = 4  # a peer that sends files nobody waits for fills no table of ours


def _find_send() -> Callable[[int, bytes, int, int], int]:
    """The C library's, called with the interpreter's lock held."""
    function = ctypes.PyDLL(None).send
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_ssize_t
    return function


_send = _find_send()


def send_short(sock: socket.socket, data: memoryview) -> int:
    """How much of ``data`` the kernel took at once; after any trouble 0, and the next try names it.

    ``socket.send`` gives the interpreter's lock away meanwhile. Among many threads that want it one
    waits for it longer than the kernel needs for a short frame: with 64 threads, keeping it spares
    two of five changes of threads for each call and a fifth of the processor time.
    """
    return max(0, _send(sock.fileno(), bytes(data), data.nbytes, _SEND_FLAGS))


def wait_for(sock: socket.socket, events: int, deadline: Deadline) -> None:
    poll = select.poll()
    poll.register(sock, events)
    while not poll.poll(deadline.wait_ms()):
        deadline.waited()


def nothing_to_receive(sock: socket.socket) -> bool:
    """Not even the peer's goodbye."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


class SocketLink:
    """A connected TCP or Unix socket."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self._socket = sock
        self._receive_wait_ms: int | None = None  # the kernel's limit; it has none at first
        self._received_bytes = 0
        sock.setblocking(True)
        self._is_tcp = sock.family != socket.AF_UNIX
        if self._is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A peer whose machine vanished is noticed on connections that wait for ever.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def establish(self, deadline: Deadline) -> None:
        pass

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        waiting = [view for view in buffers if view.nbytes]
        if len(waiting) == 1 and waiting[0].nbytes <= SHORT_SEND_BYTES:
            rest = waiting[0][send_short(self._socket, waiting[0]) :]
            waiting = [rest] if rest else []
        while waiting:
            try:
                sent = self._socket.sendmsg(waiting[:BUFFERS_PER_SEND_MAX], (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                wait_for(self._socket, select.POLLOUT, deadline)
                continue
            while waiting and sent >= waiting[0].nbytes:
                sent -= waiting.pop(0).nbytes
            if sent:
                waiting[0] = waiting[0][sent:]

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        while True:
            try:
                count = self._socket.recv_into(buffer, 0, self._receive_flags(deadline))
            except BlockingIOError:
                deadline.waited()
            else:
                self._received_bytes += count
                return count

    def _receive_flags(self, deadline: Deadline) -> int:
        """Those to receive with, and have the kernel wait as long as the deadline says."""
        try:
            wait_ms = deadline.wait_ms()
        except TimeoutError:  # what has arrived by now is still received
            return socket.MSG_DONTWAIT
        if wait_ms != self._receive_wait_ms:
            seconds, rest_ms = divmod(wait_ms or 0, 1000)
            limit = struct.pack("@ll", seconds, rest_ms * 1000)  # zero: none
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._receive_wait_ms = wait_ms
        return 0

    def is_quiet(self) -> bool:
        return self._counters_are_quiet() or nothing_to_receive(self._socket)

    def _counters_are_quiet(self) -> bool:
        """Those of TCP, for which no thread has to give way to others as it does for a poll."""
        if not self._is_tcp:
            return False
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return info[:1] == _TCP_ESTABLISHED and info[-8:] == self._received_bytes.to_bytes(
            8, sys.byteorder
        )

    def fileno(self) -> int:
        """For waiting on several links at once."""
        return self._socket.fileno()

    def shutdown(self) -> None:
        # The unbound method, because a TLS socket's own would tear down its state under a reader.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        # Shut down first: a forked child may hold a copy that would keep the peer waiting.
        self.shutdown()
        self._socket.close()

    def forget(self) -> None:
        self._socket.close()


class UnixLink(SocketLink):
    """A connected Unix socket, which can carry open files besides bytes (SCM_RIGHTS).

    A descriptor travels with the first byte of what it is sent with, so the files arrive in the
    order of the frames that announce them.
    """

    def __init__(self, sock: socket.socket, peer: str, *, takes_descriptors: bool) -> None:
        """A side that expects no files lets the kernel drop whatever is sent."""
        super().__init__(sock, peer)
        self._takes_descriptors = takes_descriptors
        self._descriptors: deque[int] = deque()

    def send_descriptor(
        self, descriptor: int, buffers: Sequence[memoryview], deadline: Deadline
    ) -> None:
        """Send the bytes and, with their first one, an open file; the caller keeps its own."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        first, *rest = (view for view in buffers if view.nbytes)
        while True:
            try:
                sent = self._socket.sendmsg([first], [rights], socket.MSG_DONTWAIT)
                break
            except BlockingIOError:
                wait_for(self._socket, select.POLLOUT, deadline)
        self.send([first[sent:], *rest], deadline)

    def take_descriptor(self) -> int | None:
        """The oldest file that has arrived and was not taken; the taker closes it."""
        return self._descriptors.popleft() if self._descriptors else None

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        if not self._takes_descriptors:
            return super().receive_into(buffer, deadline)
        descriptor_bytes = array.array("i").itemsize
        while True:
            try:
                count, messages, _flags, _address = self._socket.recvmsg_into(
                    [buffer],
                    socket.CMSG_SPACE(descriptor_bytes),
                    socket.MSG_CMSG_CLOEXEC | self._receive_flags(deadline),
                )
            except BlockingIOError:
                deadline.waited()
                continue
            for level, kind, content in messages:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    whole_bytes = len(content) - len(content) % descriptor_bytes
                    self._keep(array.array("i", content[:whole_bytes]))
            return count

    def close(self) -> None:
        super().close()
        self._drop_descriptors(0)

    def forget(self) -> None:
        super().forget()
        self._drop_descriptors(0)

    def _keep(self, received: "array.array[int]") -> None:
        self._descriptors.extend(received)
        self._drop_descriptors(UNTAKEN_DESCRIPTORS_MAX)

    def _drop_descriptors(self, kept_count: int) -> None:
        while len(self._descriptors) > kept_count:
            os.close(self._descriptors.popleft())


class TlsLink(SocketLink):
    """TLS over a TCP socket. OpenSSL's state is guarded by a lock that is never held in a wait."""

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        context: ssl.SSLContext,
        *,
        server_name: str | None = None,
    ) -> None:
        super().__init__(sock, peer)
        sock.setblocking(False)  # OpenSSL says itself what it has to wait for
        self._tls = context.wrap_socket(
            sock,
            server_side=server_name is None,
            server_hostname=server_name,
            do_handshake_on_connect=False,
        )
        self._socket = self._tls
        self._lock = threading.Lock()

    def establish(self, deadline: Deadline) -> None:
        self._retry(self._tls.do_handshake, deadline)

    def send(self, buffers: Sequence[memoryview], deadline: Deadline) -> None:
        for view in buffers:
            at = 0
            while at < view.nbytes:
                piece = view[at : at + TLS_WRITE_BYTES]
                at += self._retry(partial(self._tls.send, piece), deadline) or 0

    def receive_into(self, buffer: memoryview, deadline: Deadline) -> int:
        return self._retry(partial(self._tls.recv_into, buffer), deadline) or 0

    def is_quiet(self) -> bool:
        return nothing_to_receive(self._tls) and not self._tls.pending()

    def _retry(self, operation: Callable[[], int | None], deadline: Deadline) -> int | None:
        while True:
            try:
                with self._lock:
                    return operation()
            except ssl.SSLWantReadError:
                wait_for(self._tls, select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                wait_for(self._tls, select.POLLOUT, deadline)


class SocketListener:
    """A listening socket that can be closed while another thread waits in ``accept``."""

    def __init__(
        self,
        listening: socket.socket,
        address: Address,
        context: ssl.SSLContext | None,
        on_close: Callable[[], None],
    ) -> None:
        self.address = address
        self._socket = listening
        self._socket.setblocking(False)
        self._context = context
        self._on_close = on_close
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._closed = threading.Event()
        self._accepting = threading.Lock()

    def accept(self) -> SocketLink | None:
        poll = select.poll()
        with self._accepting:
            if self._closed.is_set():
                return None
            poll.register(self._socket, select.POLLIN)
            poll.register(self._wake_receiver, select.POLLIN)
            while True:
                poll.poll()
                if self._closed.is_set():
                    return None
                try:
                    sock, name = self._socket.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                break
        try:
            return self._link(sock, name)
        except BaseException:  # the peer is gone already
            sock.close()
            raise

    def _link(self, sock: socket.socket, name: tuple[str, int]) -> SocketLink:
        if sock.family == socket.AF_UNIX:
            return UnixLink(sock, self.address, takes_descriptors=False)
        peer = f"{name[0]}:{name[1]}"
        if self._context is None:
            return SocketLink(sock, peer)
        return TlsLink(sock, peer, self._context)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake_sender.send(b"x")
        with self._accepting:  # the descriptors are freed only when nobody polls them
            for sock in (self._socket, self._wake_sender, self._wake_receiver):
                sock.close()
        self._on_close()
