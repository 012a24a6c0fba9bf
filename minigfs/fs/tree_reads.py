"""Looking at the tree: what is there, how large, since when, and on which servers.

One call of the masters answers each question, however large the tree below a path is (a listing
comes in pages of thousands). Nothing is cached, and an outage is never taken for "not there".
"""

import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fsspec.core import has_magic

from minigfs.errors import FileMissing, InvalidPath, IsDirectory, NotDirectory
from minigfs.fs.cluster_paths import ClusterPaths

if TYPE_CHECKING:
    from minigfs.master.messages import FileStatus

__all__ = ["TreeReads"]


class TreeReads(ClusterPaths):
    """The methods that change nothing and read no bytes of files."""

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        return _info(self.client.stat(self._strip_protocol(path)))

    def exists(self, path: str, **_options: Any) -> bool:
        """Whether the path is there; raises if nobody can tell (the default answers False).

        What is no path at all, too long or with a part ``..``, is not there.
        """
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        return self._kind(path) == "directory"

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.client.stat(self._strip_protocol(path)).kind)
        except (FileMissing, InvalidPath, NotDirectory):
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

    def expand_path(
        self,
        path: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        assume_literal: bool = False,
        **options: Any,
    ) -> list[str]:
        """What paths and patterns name. A path that is there as it is written is never taken for a
        pattern (by default ``rm("/a[1]")`` leaves it and removes ``/a1``)."""
        single = isinstance(path, str | os.PathLike)
        patterns: list[str] = []
        found: set[str] = set()
        for one in self._strip_protocol([path] if single else list(path)):
            if not (assume_literal or (has_magic(one) and self.exists(one))):
                patterns.append(one)
            elif recursive:
                found.update(self.find(one, maxdepth=maxdepth, withdirs=True))
            else:
                found.add(one)
        try:
            found.update(super().expand_path(patterns, recursive, maxdepth, **options))
        except FileNotFoundError:
            if not found:
                raise
        return sorted(found)

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
        # A file that is appended to has no digest meanwhile, and what it has only grows.
        content = status.digest or f"{status.modified_ms}-{status.size_bytes}"
        return f"{self._cluster_id}-{status.file_id}-{content}"

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
                "start": located.start_bytes(chunk.index),
                "length": chunk.length_bytes,
                "hosts": [replica.host for replica in chunk.replicas],
                "addresses": [replica.address for replica in chunk.replicas],
            }
            for chunk in located.chunks
        ]


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
