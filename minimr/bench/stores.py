"""What a load does, once for us and once for a file system of the machine (a peer's mount)."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minigfs.client.client import MinigfsClient

__all__ = ["MinigfsStore", "MountedStore", "Store"]

ReadInto = Callable[[int, bytearray], int]
"""Fill a buffer from an offset on; how many bytes were there."""


class Store(Protocol):
    """One client of a file system. Stores travel by pickle."""

    @property
    def name(self) -> str: ...

    def write(self, path: str, pieces: Iterable[bytes], replication: int) -> None:
        """A whole file, acknowledged as durable; its path begins with the number of replicas."""
        ...

    def opened(self, path: str) -> AbstractContextManager[ReadInto]: ...

    def create(self, path: str, data: bytes) -> None: ...

    def rename(self, source: str, target: str) -> None: ...

    def stat(self, path: str) -> None: ...

    def remove(self, path: str) -> None:
        """For good."""
        ...

    def make_directory(self, path: str) -> None: ...

    def names(self, path: str) -> list[str]:
        """Paths of what lies in a directory."""
        ...


@dataclass(frozen=True)
class MinigfsStore:
    client: MinigfsClient
    name: str = "minigfs"

    def write(self, path: str, pieces: Iterable[bytes], replication: int) -> None:
        with self.client.open_writer(path, replication=replication) as writer:
            for piece in pieces:
                writer.write(piece)

    @contextmanager
    def opened(self, path: str) -> Iterator[ReadInto]:
        with self.client.open_reader(path) as reader:
            yield reader.read_into

    def create(self, path: str, data: bytes) -> None:
        self.client.write_file(path, data)

    def rename(self, source: str, target: str) -> None:
        self.client.rename(source, target)

    def stat(self, path: str) -> None:
        self.client.stat(path)

    def remove(self, path: str) -> None:
        self.client.remove(
            path, now=True
        )  # as the peer does: no trash to fill with what nobody wants

    def make_directory(self, path: str) -> None:
        self.client.make_directory(path)

    def names(self, path: str) -> list[str]:
        return [status.path for status in self.client.list_directory(path)]


@dataclass(frozen=True)
class MountedStore:
    """How many replicas a file gets is the directory's to say, in which the path puts it."""

    root: Path
    name: str

    def write(self, path: str, pieces: Iterable[bytes], replication: int) -> None:
        with self._place(path).open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
            os.fsync(file.fileno())

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @contextmanager
    def opened(self, path: str) -> Iterator[ReadInto]:
        with self._place(path).open("rb", buffering=0) as file:
            yield lambda offset, buffer: os.preadv(file.fileno(), [buffer], offset)

    def create(self, path: str, data: bytes) -> None:
        self._place(path).write_bytes(data)

    def rename(self, source: str, target: str) -> None:
        self._place(source).rename(self._place(target))

    def stat(self, path: str) -> None:
        self._place(path).stat()

    def remove(self, path: str) -> None:
        self._place(path).unlink()

    def make_directory(self, path: str) -> None:
        self._place(path).mkdir()

    def names(self, path: str) -> list[str]:
        return [f"{path}/{place.name}" for place in self._place(path).iterdir()]
