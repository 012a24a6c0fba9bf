"""The call to the server after this one in a chain, which may be nobody."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self, TypeVar

from minigfs.errors import MinigfsError
from minigfs.ports import Buffer
from minigfs.transport.address import Address
from minigfs.transport.client import ConnectionPool
from minigfs.transport.deadline import Watch
from minigfs.transport.messages import Message, Request
from minigfs.transport.stream import Stream

__all__ = ["Downstream"]

_MessageT = TypeVar("_MessageT", bound=Message)


class Downstream(ABC):
    """Open as long as its block; what it raises is said by ``_failed``."""

    def __init__(self) -> None:
        self._stream: Stream | None = None  # of nobody
        self._timeout_ms = 0

    @abstractmethod
    def _failed(self, error: MinigfsError) -> Exception:
        """What a failure of the next server means."""

    def _begin(
        self,
        pool: ConnectionPool,
        address: Address,
        request: Request[Any],
        *,
        timeout_ms: int,
        payload: Buffer = b"",
        watch: Watch | None = None,
    ) -> None:
        self._timeout_ms = timeout_ms
        try:
            self._stream = pool.open_stream(
                address, request, timeout_ms=timeout_ms, payload=payload, watch=watch
            )
        except MinigfsError as error:
            raise self._failed(error) from error

    def _send(self, message: Message, data: Buffer) -> None:
        if self._stream is None:
            return
        try:
            self._stream.send(message, data, timeout_ms=self._timeout_ms)
        except MinigfsError as error:
            raise self._failed(error) from error

    def _answer(self, kind: type[_MessageT]) -> _MessageT | None:
        """None if there is nobody."""
        if self._stream is None:
            return None
        try:
            answer, _ = self._stream.receive(kind, timeout_ms=self._timeout_ms)
        except MinigfsError as error:
            raise self._failed(error) from error
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.__exit__(exc_type, exc, traceback)
