"""What the end of a ``with`` block means for something that happens as a whole or not at all."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["AllOrNothing"]


class AllOrNothing(ABC):
    """A context manager: completed by a clean exit, discarded by an exception."""

    @abstractmethod
    def _complete(self) -> None:
        """The block was left cleanly."""

    @abstractmethod
    def discard(self) -> None:
        """Let nothing happen. Allowed at any time, repeatedly."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self._complete()
        else:
            self.discard()
