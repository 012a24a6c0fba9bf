"""minigfs as an fsspec file system: protocol ``minigfs``, URLs ``minigfs:///path``.

Where fsspec's defaults would hide an outage as "not there", copy instead of rename, publish half a
file or ask once per directory, this class overrides them (each override says what it avoids). It
is synchronous and lazy: making one opens no connection and reads no file, sockets live in
`minigfs.client`'s pool and never in an instance, so instances are cheap to pickle, to cache and to
carry over a fork. Listings are never cached.
"""

import datetime as dt
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.utils import isfilelike, stringify_path

from minigfs.errors import (
    FileExists,
    FileMissing,
    InvalidConfig,
    IsDirectory,
    NotDirectory,
    Unsupported,
)
from minigfs.files import (
    BUFFER_BYTES,
    COPY_BYTES,
    CompressedFile,
    ReadFile,
    WriteFile,
    blocks_of,
    slice_of,
    write_whole,
)

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient
    from minigfs.client.config import ClientConfig
    from minigfs.master.messages import FileStatus

__all__ = ["MinigfsFileSystem"]

_RANGE_THREAD_COUNT = 8  # of cat_ranges
_PROTOCOL = "minigfs"


class MinigfsFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """Files of a minigfs cluster.

    Parameters
    ----------
    masters : str or list of str, optional
        Addresses (``"host:port"``, with commas between) of the cluster's masters.
    token_file : str, optional
        File with the cluster's token.
    home : str, optional
        Home of a cluster on this machine, where masters and token are found if they are not given;
        else ``FSSPEC_MINIGFS_*``, ``$MINIMR_HOME`` and ``~/.minimr`` are looked at, in this order.
    timeout_ms : int
        How long a request is retried before it fails.

    Every method raises `minigfs.errors.Unreachable` (a ``ConnectionError``) when the cluster
    cannot be reached; none takes that for a missing file.
    """

    protocol = _PROTOCOL
    root_marker = "/"
    cachable = True

    def __init__(
        self,
        masters: str | list[str] | tuple[str, ...] | None = None,
        token_file: str | None = None,
        home: str | None = None,
        timeout_ms: int = 10_000,
    ) -> None:
        super().__init__()
        self._masters = masters
        self._token_file = token_file
        self._home = home
        self._timeout_ms = timeout_ms
        self._lazy_client: MinigfsClient | None = None

    @property
    def client(self) -> "MinigfsClient":
        """The client underneath, made when first asked for."""
        if self._lazy_client is None:
            from minigfs.client.client import MinigfsClient

            self._lazy_client = MinigfsClient(self._config())
        return self._lazy_client

    def _config(self) -> "ClientConfig":
        from minigfs.client.config import ClientConfig

        return ClientConfig.discover(
            masters=self._masters,
            token_file=self._token_file,
            home=self._home,
            timeout_ms=self._timeout_ms,
        )

    @property
    def fsid(self) -> str:
        return f"{_PROTOCOL}-{self.client.report().cluster_id}"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = stringify_path(path)
        for prefix in (f"{_PROTOCOL}://", f"{_PROTOCOL}::"):
            if text.startswith(prefix):
                _authority, _slash, text = text.removeprefix(prefix).partition("/")
        return "/" + "/".join(part for part in text.split("/") if part)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        text = stringify_path(path)
        if not text.startswith(f"{_PROTOCOL}://"):
            return {}
        authority = text.removeprefix(f"{_PROTOCOL}://").partition("/")[0]
        if not authority:
            return {}
        if ":" not in authority:
            raise InvalidConfig(
                f"{text}: {authority!r} is no HOST:PORT of a master; "
                f"a path has three slashes: {_PROTOCOL}:///{text.removeprefix(f'{_PROTOCOL}://')}"
            )
        return {"masters": authority}

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        return _info(self.client.stat(self._strip_protocol(path)))

    def exists(self, path: str, **_options: Any) -> bool:
        """Whether the path is there; raises if nobody can tell (the default answers False)."""
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        return self._kind(path) == "directory"

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.client.stat(self._strip_protocol(path)).kind)
        except (FileMissing, NotDirectory):
            return None

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        found = [_info(status) for status in self.client.list_directory(self._strip_protocol(path))]
        return found if detail else [one["name"] for one in found]

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], None] = "omit",
        **options: Any,
    ) -> Iterator[Any]:
        """As in fsspec, but "omit" skips what is not there, not what cannot be reached."""
        yield from super().walk(
            path,
            maxdepth=maxdepth,
            topdown=topdown,
            on_error=_skip_missing if on_error == "omit" else on_error,
            **options,
        )

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **_options: Any,
    ) -> Any:
        """Everything below a path, by one listing of the master instead of one per directory."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        found: dict[str, dict[str, Any]] = {}
        try:
            if withdirs:
                found[path] = self.info(path)
            for status in self._below(path, maxdepth):
                if withdirs or status.kind == "file":
                    found[status.path] = _info(status)
        except (FileMissing, NotDirectory):
            found = {}
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _below(self, path: str, maxdepth: int | None) -> Iterable["FileStatus"]:
        if maxdepth == 1:
            return self.client.list_directory(path)
        depth_max = None if maxdepth is None else path.rstrip("/").count("/") + maxdepth
        return (
            status
            for status in self.client.find(path)
            if depth_max is None or status.path.count("/") <= depth_max
        )

    def du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **_options: Any,
    ) -> Any:
        """Bytes below a path, by the same one listing as `find`."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: status["size"] for name, status in found.items()}
        return sum(sizes.values()) if total else sizes

    def created(self, path: str) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.info(path)["created"], tz=dt.UTC)

    def modified(self, path: str) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.info(path)["mtime"], tz=dt.UTC)

    def ukey(self, path: str) -> str:
        """Changes whenever the content at the path may have: each written file is a new inode."""
        status = self.client.stat(self._strip_protocol(path))
        return f"{self.client.report().cluster_id}-{status.file_id}-{status.digest}"

    def checksum(self, path: str) -> int:
        """The digest the master recorded when the file was closed (xxh3-64)."""
        status = self.client.stat(self._strip_protocol(path))
        if status.kind != "file":
            raise IsDirectory(f"{status.path}: a directory has no checksum; name a file")
        return int(status.digest or "0", 16)

    def locations(
        self, path: str, start: int = 0, length: int | None = None
    ) -> list[dict[str, Any]]:
        """Where a range of a file is stored, chunk by chunk, for schedulers.

        Returns
        -------
        list of dict
            One per chunk that the range touches, in order: ``start`` and ``length`` of the chunk
            in the file (bytes), ``hosts`` (labels of the hosts with a live replica) and
            ``addresses`` (of their chunkservers, in the same order).
        """
        path = self._strip_protocol(path)
        located = self.client.locations(path, start, length)
        return [
            {
                "start": chunk.index * located.chunk_bytes,
                "length": chunk.length_bytes,
                "hosts": [replica.host for replica in chunk.replicas],
                "addresses": [replica.address for replica in chunk.replicas],
            }
            for chunk in located.chunks
        ]

    def mkdir(self, path: str, create_parents: bool = True, **_options: Any) -> None:
        """Make a directory; `FileExists` if there is something at the path."""
        self.client.make_directory(self._strip_protocol(path), parents=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.client.make_directory(self._strip_protocol(path), parents=True, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory; `DirectoryNotEmpty` if it is not."""
        path = self._strip_protocol(path)
        if self.client.stat(path).kind != "directory":
            raise NotDirectory(f"{path}: not a directory; rm removes files")
        self.client.remove(path, recursive=False)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        if self.client.stat(path).kind == "directory":
            raise IsDirectory(f"{path}: a directory; remove it with recursive=True")
        self.client.remove(path, recursive=False)

    _rm = rm_file

    def rm(
        self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None
    ) -> None:
        """Remove files and, with ``recursive``, whole directories, each by one change."""
        if maxdepth is not None:
            raise Unsupported("rm removes whole directories: leave maxdepth out")
        for one in self.expand_path(path, recursive=False):
            if recursive:
                self.client.remove(one, recursive=True)
            else:
                self.rm_file(one)

    def mv(
        self,
        path1: str | list[str],
        path2: str,
        recursive: bool = False,
        maxdepth: int | None = None,
        **_options: Any,
    ) -> None:
        """Move files or directories, each by one atomic rename (the default copies).

        A file takes the place of a file. If ``path2`` is a directory, or ends in a slash, or there
        are many sources, things move into it. ``recursive`` is not needed for a directory.
        """
        sources = self.expand_path(path1, recursive=False)
        target = self._strip_protocol(path2)
        into = stringify_path(path2).endswith("/") or self.isdir(target) or len(sources) > 1
        for source in sources:
            name = source.rsplit("/", 1)[-1]
            self.rename(source, f"{target.rstrip('/')}/{name}" if into else target, replace=True)

    def rename(self, path1: str, path2: str, replace: bool = False, **_options: Any) -> None:
        """Give a file or directory exactly this new path, by one atomic change.

        `FileExists` if the path is taken, unless ``replace`` and both are files. Missing parents
        of the new path are made.
        """
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            self.client.rename(source, target, replace=replace)
        except FileMissing:
            if not self.exists(source) or self.exists(self._parent(target)):
                raise
            self.makedirs(self._parent(target), exist_ok=True)
            self.client.rename(source, target, replace=replace)

    def cp_file(self, path1: str, path2: str, **_options: Any) -> None:
        source = self._strip_protocol(path1)
        if self.isdir(source):
            self.makedirs(path2, exist_ok=True)
            return
        with self.open(source, "rb") as reader, self.open(path2, "wb") as writer:
            writer.writelines(blocks_of(reader, lambda _count: None))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,  # the client reads ahead by itself
        cache_type: str | None = None,  # likewise
        replication: int | None = None,
    ) -> ReadFile | WriteFile:
        buffer_bytes = block_size or BUFFER_BYTES
        if mode == "rb":
            return ReadFile(self, path, self.client.open_reader(path), buffer_bytes)
        if mode in ("wb", "xb"):
            writer = self.client.open_writer(path, exclusive=mode == "xb", replication=replication)
            return WriteFile(self, path, writer, buffer_bytes, autocommit=autocommit, mode=mode)
        raise Unsupported(
            f"{path}: cannot open with mode {mode!r}; files are read (rb) or written once "
            f"and whole (wb, xb)"
        )

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **options: Any,
    ) -> Any:
        """Open a file; see `minigfs.files` for when a written one appears.

        As in fsspec, but closing a file that is written with ``compression`` closes all of it (by
        default only the compressor is closed, and the file is left to the garbage collector).
        """
        if compression is None or "r" in mode:
            return super().open(path, mode, block_size, cache_options, compression, **options)
        text = {
            key: options.pop(key) for key in ("encoding", "errors", "newline") if key in options
        }
        file = super().open(path, mode.replace("t", "").replace("b", "") + "b", **options)
        codec = get_compression(self._strip_protocol(path), compression)
        if codec is not None:
            file = CompressedFile(compr[codec](file, mode="w"), file)
        return file if "b" in mode else io.TextIOWrapper(file, **text)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_options: Any
    ) -> bytes:
        with self.open(path, "rb") as file:
            first, last = slice_of(start, end, file.size)
            file.seek(first)
            content: bytes = file.read(last - first)
            return content

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # ranges are cheap here: none are merged
        on_error: str = "return",
        **_options: Any,
    ) -> list[Any]:
        """Many ranges of many files, read in parallel (the default reads one after the other)."""
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        with ThreadPoolExecutor(_RANGE_THREAD_COUNT) as pool:
            futures = [
                pool.submit(self.cat_file, *range_)
                for range_ in zip(paths, starts, ends, strict=True)
            ]
        if on_error != "return":
            return [future.result() for future in futures]
        return [future.exception() or future.result() for future in futures]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_options: Any) -> None:
        """Write a whole file; ``mode="create"`` lets the master refuse a path that is taken."""
        with self.open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def touch(self, path: str, truncate: bool = True, **_options: Any) -> None:
        """Make an empty file. With ``truncate=False`` a file that is there stays as it is: minigfs
        has no way to change only its time."""
        try:
            with self.open(path, "wb" if truncate else "xb"):
                pass
        except FileExists:
            if truncate or self.isdir(path):
                raise

    def put_file(
        self,
        lpath: Any,
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **_options: Any,
    ) -> None:
        if Path(lpath).is_dir():
            self.makedirs(rpath, exist_ok=True)
            return
        with (
            Path(lpath).open("rb", buffering=0) as source,
            self.open(rpath, "xb" if mode == "create" else "wb") as target,
        ):
            callback.set_size(os.fstat(source.fileno()).st_size)
            buffer = memoryview(bytearray(COPY_BYTES))
            while count := source.readinto(buffer):
                target.write(buffer[:count])
                callback.relative_update(count)

    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Callback = DEFAULT_CALLBACK,
        outfile: Any = None,
        **_options: Any,
    ) -> None:
        """Copy to a local file, which appears whole: written beside itself and renamed."""
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is None and self.isdir(rpath):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        with self.open(rpath, "rb") as source:
            callback.set_size(source.size)
            blocks = blocks_of(source, callback.relative_update)
            if outfile is None:
                write_whole(lpath, blocks)
                return
            for block in blocks:
                outfile.write(block)


def _info(status: "FileStatus") -> dict[str, Any]:
    return {
        "name": status.path,
        "size": status.size_bytes,
        "type": str(status.kind),
        "created": status.created_ms / 1000,
        "mtime": status.modified_ms / 1000,
        "file_id": int(status.file_id),
        "replication": status.replication,
        "chunks": status.chunk_count,
        "digest": status.digest,
    }


def _skip_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
