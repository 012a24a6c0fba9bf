"""The bytes of files: opening them, and everything that reads or writes them whole."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.utils import isfilelike

from minigfs.errors import FileExists, FileMissing, Unsupported
from minigfs.files import (
    BUFFER_BYTES,
    COPY_BYTES,
    CompressedFile,
    RawWriter,
    ReadFile,
    TextWriteFile,
    WriteFile,
    blocks_of,
    slice_of,
    write_whole,
)
from minigfs.fs.append_file import AppendFile, Appends
from minigfs.fs.rewrite_file import Rewrite, RewriteFile, open_to_append
from minigfs.fs.tree_changes import TreeChanges
from minigfs.fs.update_file import UpdateFile, Updates

if TYPE_CHECKING:
    from minigfs.client.reader import FileReader

__all__ = ["MinigfsFileSystem"]

_RANGE_THREAD_COUNT = 8  # of cat_ranges


class MinigfsFileSystem(TreeChanges):
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
    tls_ca : str, optional
        PEM file of the authority that signed the servers' certificates, for a cluster with TLS.
    auto_mkdir : bool
        Whether opening a file to write makes missing directories above it.

    Every method raises `minigfs.errors.Unreachable` (a ``ConnectionError``) when the cluster
    cannot be reached; none takes that for a missing file.
    """

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str | None = None,
        replication: int | None = None,
        **cache_hints: Any,  # the client reads ahead by itself
    ) -> ReadFile | WriteFile | AppendFile | UpdateFile | RewriteFile:
        buffer_bytes = block_size or BUFFER_BYTES
        if cache_hints and mode != "rb":
            raise TypeError(f"{path}: unknown options for writing: {', '.join(cache_hints)}")
        if mode == "rb":
            return ReadFile(self, path, self.client.open_reader(path), buffer_bytes)
        self._require_parent(path)
        if mode in ("wb", "xb"):
            writer = self.client.open_writer(path, exclusive=mode == "xb", replication=replication)
            raw = RawWriter(writer)
            return WriteFile(self, path, raw, buffer_bytes, autocommit=autocommit, mode=mode)
        if mode == "ab" and autocommit:
            return AppendFile(self, path, Appends(self.client, path), buffer_bytes)
        if mode == "ab":
            return open_to_append(self, path, buffer_bytes)
        updating = f"{mode[:1]}+b"
        if mode in (updating, f"{mode[:1]}b+") and mode[:1] in ("r", "w", "x"):
            if updating == "r+b" and autocommit:
                return UpdateFile(self, path, Updates(self.client, path))
            rewrite = Rewrite(self.client, path, updating)
            file = RewriteFile(self, path, updating, rewrite, autocommit=autocommit)
            if mode.startswith("r") and not autocommit:  # which fsspec takes for reading only
                self.transaction.files.append(file)
            return file
        raise Unsupported(
            f"{path}: cannot open with mode {mode!r}; files are read (rb), written (wb, xb), "
            f"appended to (ab) or changed (r+b, w+b, x+b)"
        )

    def _require_parent(self, path: str) -> None:
        if not self._auto_mkdir and not self.isdir(self._parent(path)):
            raise FileMissing(
                f"{self._parent(path)}: no such directory; make it, or leave auto_mkdir=False out"
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
        if "r" in mode:
            return super().open(path, mode, block_size, cache_options, compression, **options)
        text = {
            key: options.pop(key) for key in ("encoding", "errors", "newline") if key in options
        }
        binary = mode.replace("t", "").replace("b", "") + "b"
        file = super().open(path, binary, block_size, cache_options, **options)
        codec = get_compression(self._strip_protocol(path), compression)
        if codec is not None:
            file = CompressedFile(compr[codec](file, mode="w"), file)
        return file if "b" in mode else TextWriteFile(file, **text)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_options: Any
    ) -> bytes:
        with self.client.open_reader(self._strip_protocol(path)) as reader:
            return _slice(reader, start, end)

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **_options: Any
    ) -> Any:
        """The content of a file; of many, a dict by path, read in parallel (by default one after
        the other)."""
        paths = self.expand_path(path, recursive=recursive)
        if isinstance(path, str | os.PathLike) and paths == [self._strip_protocol(path)]:
            return self.cat_file(paths[0])
        nothing = [None] * len(paths)
        contents = zip(paths, self.cat_ranges(paths, nothing, nothing), strict=True)
        found = {}
        for one, content in contents:
            if isinstance(content, BaseException) and on_error != "return":
                if on_error == "raise":
                    raise content
            else:
                found[one] = content
        return found

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # ranges are cheap here: none are merged
        on_error: str = "return",
        **_options: Any,
    ) -> list[Any]:
        """Many ranges of many files, in parallel, each file opened once (by default, one range
        after the other and a file for each)."""
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        wanted = list(zip(self._strip_protocol(paths), starts, ends, strict=True))
        with ThreadPoolExecutor(_RANGE_THREAD_COUNT) as pool:
            # Files before ranges: a range that waits for its file never keeps the file waiting.
            opened = {
                path: pool.submit(self.client.open_reader, path)
                for path in dict.fromkeys(path for path, _, _ in wanted)
            }
            futures = [
                pool.submit(_slice_of_opened, opened[path], start, end)
                for path, start, end in wanted
            ]
        if on_error != "return":
            return [future.result() for future in futures]
        return [future.exception() or future.result() for future in futures]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_options: Any) -> None:
        """Write a whole file; ``mode="create"`` lets the master refuse a path that is taken."""
        if self._intrans:
            with self.open(path, "xb" if mode == "create" else "wb") as file:
                file.write(value)
        else:
            path = self._strip_protocol(path)
            self._require_parent(path)
            self.client.write_file(path, value, exclusive=mode == "create")

    def touch(self, path: str, truncate: bool = True, **_options: Any) -> None:
        """Make an empty file. With ``truncate=False`` a file that is there stays as it is: minigfs
        has no way to change only its time."""
        try:
            self.pipe_file(path, b"", mode="overwrite" if truncate else "create")
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


def _slice(reader: "FileReader", start: int | None, end: int | None) -> bytes:
    first, last = slice_of(start, end, reader.size_bytes)
    return reader.read_at(first, last - first)


def _slice_of_opened(reader: "Future[FileReader]", start: int | None, end: int | None) -> bytes:
    return _slice(reader.result(), start, end)
