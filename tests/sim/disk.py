"""A disk in memory that forgets, at a crash, what was never synced.

Every file keeps two contents: what a reader sees, and what the platter has; the writes between the
two are kept one by one. Every directory keeps two sets of entries in the same way. ``sync`` and
``sync_dir`` bring the second up to the first; ``crash`` throws the first away, but for as much of
it as the test (or chance) lets survive, down to half a write.
"""

import builtins
import errno
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from minigfs.errors import NoSpace
from minigfs.ports import Buffer, Rng, check_disk_path

__all__ = ["SimDisk", "SimFile"]


class Content:
    """One inode."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = bytearray()
        self.unsynced: list[Callable[[bytearray, int | None], None]] = []
        self.unsynced_bytes: list[int] = []  # how much of each can survive; 0: all or nothing

    def change(self, apply: Callable[[bytearray, int | None], None], length: int) -> None:
        apply(self.seen, None)
        self.unsynced.append(apply)
        self.unsynced_bytes.append(length)

    def sync(self) -> None:
        self.durable = bytearray(self.seen)
        self.unsynced.clear()
        self.unsynced_bytes.clear()


class Directory:
    def __init__(self) -> None:
        self.seen: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}


Node: TypeAlias = Content | Directory


def missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def grow(content: bytearray, length: int) -> None:
    if len(content) < length:
        content.extend(bytes(length - len(content)))


class SimDisk:
    """A whole disk; several servers get one each. Thread-safe."""

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self._lock = threading.RLock()
        self._root = Directory()
        self._capacity_bytes = capacity_bytes
        self._boot = 0
        self._faults: dict[str, builtins.list[int]] = {}
        self.forgets_syncs = False
        """A broken disk: it says that bytes are durable, and a crash loses them all the same."""
        self.before_change: Callable[[str, str], None] | None = None
        """Called with the operation and the path before anything is changed or synced; what it
        raises ends the operation."""

    # What a test does to it.

    def fail(self, operation: str, error_number: int, times: int = 1) -> None:
        """Let the next calls of ``"read"``, ``"write"`` or ``"sync"`` fail with an errno."""
        with self._lock:
            self._faults.setdefault(operation, []).extend([error_number] * times)

    def clear_faults(self) -> None:
        """What was to fail will not."""
        with self._lock:
            self._faults.clear()

    def crash(self, *, torn_bytes: int | None = None) -> None:
        """Lose what was not synced; open files are dead.

        With ``torn_bytes``, un-synced writes survive but for the last of each file, of which only
        so many bytes do.
        """
        with self._lock:
            self._crash(lambda directory: directory.durable, lambda c: torn(c, torn_bytes))

    def crash_by_chance(self, rng: Rng) -> None:
        """Lose, keep or tear each un-synced write, and lose or keep each directory's entries."""
        with self._lock:
            self._crash(
                lambda directory: directory.seen if rng.random_u64() & 1 else directory.durable,
                lambda content: by_chance(content, rng),
            )

    def kill(self) -> None:
        """The process dies, the machine lives on: open files are dead, nothing is lost yet."""
        with self._lock:
            self._boot += 1
            self._faults.clear()

    def flip_bit(self, path: str, offset: int, bit: int) -> None:
        """The medium decays: one bit of what is stored, synced or not, is another one."""
        with self._lock:
            directory, name = self._parent(path)
            node = directory.seen[name]
            assert isinstance(node, Content)
            node.seen[offset] ^= 1 << bit
            if offset < len(node.durable):
                node.durable[offset] ^= 1 << bit

    def lose_file(self, path: str) -> None:
        """The medium loses a file, synced or not: no operation, so no fault can hinder it."""
        with self._lock:
            directory, name = self._parent(path)
            del directory.seen[name]
            directory.durable.pop(name, None)

    def resize(self, capacity_bytes: int) -> None:
        """Others fill the file system, or leave room again."""
        self._capacity_bytes = capacity_bytes

    def used_bytes(self) -> int:
        with self._lock:
            return self._used_bytes(self._root)

    def _crash(
        self,
        entries: Callable[[Directory], dict[str, Node]],
        survivor: Callable[[Content], bytearray],
    ) -> None:
        self._boot += 1
        self._faults.clear()
        survivors: dict[int, bytearray] = {}

        def visit(directory: Directory) -> None:
            directory.seen = dict(entries(directory))
            directory.durable = dict(directory.seen)
            for _, node in sorted(directory.seen.items()):
                if isinstance(node, Directory):
                    visit(node)
                elif id(node) not in survivors:
                    survivors[id(node)] = node.seen = survivor(node)
                    node.sync()

        visit(self._root)

    # The port.

    def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> "SimFile":
        with self._lock:
            directory, name = self._parent(path)
            node = directory.seen.get(name)
            if isinstance(node, Directory) or not name:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if node is not None and create and exclusive:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            if node is None:
                if not create:
                    raise missing(path)
                self._announce("create", path)
                node = directory.seen[name] = Content()
            return SimFile(self, path, node, self._boot)

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            from_directory, from_name = self._parent(source)
            to_directory, to_name = self._parent(target)
            node = from_directory.seen.get(from_name)
            if node is None:
                raise missing(source)
            standing = to_directory.seen.get(to_name)
            if isinstance(standing, Directory) and isinstance(node, Content):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
            self._announce("rename", source)
            del from_directory.seen[from_name]
            to_directory.seen[to_name] = node

    def link(self, source: str, target: str) -> None:
        with self._lock:
            from_directory, from_name = self._parent(source)
            to_directory, to_name = self._parent(target)
            node = from_directory.seen.get(from_name)
            if not isinstance(node, Content):
                raise missing(source)
            if to_name in to_directory.seen:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            self._announce("link", target)
            to_directory.seen[to_name] = node

    def remove(self, path: str) -> None:
        with self._lock:
            directory, name = self._parent(path)
            node = directory.seen.get(name)
            if isinstance(node, Directory):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if node is None:
                raise missing(path)
            self._announce("remove", path)
            del directory.seen[name]

    def list(self, directory: str) -> builtins.list[str]:
        with self._lock:
            return sorted(self._directory(directory).seen)

    def make_dirs(self, path: str) -> None:
        with self._lock:
            directory = self._root
            for name in check_disk_path(path).split("/") if path else ():
                node = directory.seen.setdefault(name, Directory())
                if isinstance(node, Content):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
                directory = node

    def sync_dir(self, path: str) -> None:
        with self._lock:
            directory = self._directory(path)
            self._announce("sync", path)
            self._maybe_fail("sync", path)
            directory.durable = dict(directory.seen)

    def exists(self, path: str) -> bool:
        with self._lock:
            try:
                directory, name = self._parent(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return not name or name in directory.seen

    def size_bytes(self, path: str) -> int:
        with self._lock:
            directory, name = self._parent(path)
            node = directory.seen.get(name)
            if node is None:
                raise missing(path)
            return len(node.seen)

    def free_bytes(self) -> int:
        with self._lock:
            return self._capacity_bytes - self._used_bytes(self._root)

    def capacity_bytes(self) -> int:
        return self._capacity_bytes

    # For its files.

    def check(self, operation: str, path: str, boot: int) -> None:
        if boot != self._boot:
            raise OSError(errno.EBADF, "the machine has crashed since this file was opened", path)
        if operation in ("write", "sync"):
            self._announce(operation, path)
        self._maybe_fail(operation, path)

    def reserve(self, path: str, content: Content, length: int) -> None:
        """Refuse to let a file grow to ``length`` where the disk has no room."""
        more = length - len(content.seen)
        if more > 0 and more > self.free_bytes():
            raise NoSpace(f"the disk under {path} is full: free space there")

    @property
    def lock(self) -> threading.RLock:
        return self._lock

    def _announce(self, operation: str, path: str) -> None:
        if self.before_change is not None:
            self.before_change(operation, path)

    def _maybe_fail(self, operation: str, path: str) -> None:
        pending = self._faults.get(operation)
        if pending:
            number = pending.pop(0)
            if number in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(f"the disk under {path} is full: free space there")
            raise OSError(number, os.strerror(number), path)

    def _directory(self, path: str) -> Directory:
        directory = self._root
        for name in check_disk_path(path).split("/") if path else ():
            node = directory.seen.get(name)
            if node is None:
                raise missing(path)
            if isinstance(node, Content):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            directory = node
        return directory

    def _parent(self, path: str) -> tuple[Directory, str]:
        parent, _, name = check_disk_path(path).rpartition("/")
        return self._directory(parent), name

    def _used_bytes(self, directory: Directory) -> int:
        return sum(
            len(node.seen) if isinstance(node, Content) else self._used_bytes(node)
            for node in directory.seen.values()
        )


def torn(content: Content, torn_bytes: int | None) -> bytearray:
    survivor = bytearray(content.durable)
    if torn_bytes is not None and content.unsynced:
        for apply in content.unsynced[:-1]:
            apply(survivor, None)
        content.unsynced[-1](survivor, torn_bytes)
    return survivor


def by_chance(content: Content, rng: Rng) -> bytearray:
    survivor = bytearray(content.durable)
    for apply, length in zip(content.unsynced, content.unsynced_bytes, strict=True):
        match rng.random_u64() % 3:
            case 0:
                apply(survivor, None)
            case 1 if length:
                apply(survivor, rng.random_u64() % length)
    return survivor


class SimFile:
    def __init__(self, disk: SimDisk, path: str, content: Content, boot: int) -> None:
        self._disk = disk
        self._path = path
        self._content = content
        self._boot = boot
        self._closed = False

    def _check(self, operation: str) -> None:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        self._disk.check(operation, self._path, self._boot)

    def read_at(self, offset: int, length: int) -> bytes:
        with self._disk.lock:
            self._check("read")
            return bytes(self._content.seen[offset : offset + length])

    def write_at(self, offset: int, *buffers: Buffer) -> None:
        data = b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers)
        if not data:
            return

        def apply(content: bytearray, torn_bytes: int | None) -> None:
            part = data[:torn_bytes]
            grow(content, offset + len(part))
            content[offset : offset + len(part)] = part

        with self._disk.lock:
            self._check("write")
            self._disk.reserve(self._path, self._content, offset + len(data))
            self._content.change(apply, len(data))

    def write_durably(self, offset: int, *buffers: Buffer) -> None:
        self.write_at(offset, *buffers)
        self.sync()

    def size_bytes(self) -> int:
        with self._disk.lock:
            self._check("size")
            return len(self._content.seen)

    def truncate(self, length: int) -> None:
        def apply(content: bytearray, torn_bytes: int | None) -> None:
            del content[length:]
            grow(content, length)

        with self._disk.lock:
            self._check("write")
            self._content.change(apply, 0)

    def preallocate(self, length: int) -> None:
        with self._disk.lock:
            self._check("write")
            self._disk.reserve(self._path, self._content, length)
            self._content.change(lambda content, torn_bytes: grow(content, length), 0)

    def write_behind(self, offset: int, length: int) -> None:
        """Nothing: what is not synced may be lost, however far it had come."""

    def sync(self) -> None:
        with self._disk.lock:
            self._check("sync")
            if not self._disk.forgets_syncs:
                self._content.sync()

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
