"""Changing the tree: directories, names, removal. Each change is one entry of the masters' log."""

from typing import Any

from fsspec.utils import stringify_path

from minigfs.client.tree_paths import outermost
from minigfs.errors import FileExists, FileMissing, IsDirectory, NotDirectory, Unsupported
from minigfs.fs.tree_reads import TreeReads

__all__ = ["TreeChanges"]


class TreeChanges(TreeReads):
    """The methods that change names and write no bytes of files."""

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

    def rm_file(self, path: str, now: bool = False) -> None:
        path = self._strip_protocol(path)
        if self.client.stat(path).kind == "directory":
            raise IsDirectory(f"{path}: a directory; remove it with recursive=True")
        self.client.remove(path, now=now)

    _rm = rm_file

    def rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        now: bool = False,
    ) -> None:
        """Remove files and, with ``recursive``, whole directories, each by one change.

        They rest in the trash for a while, unless ``now``: see `MinigfsClient.remove`.
        """
        if maxdepth is not None:
            raise Unsupported("rm removes whole directories: leave maxdepth out")
        paths = self.expand_path(path, recursive=False)
        if not recursive:
            for one in paths:
                self.rm_file(one, now)
            return
        for one in outermost(paths):
            self.client.remove(one, recursive=True, now=now)

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
        targets: dict[str, str] = {}
        for source in sources:
            name = source.rsplit("/", 1)[-1]
            place = f"{target.rstrip('/')}/{name}" if into else target
            other = targets.setdefault(place, source)
            if other != source:  # the first to be moved would be gone for good
                raise FileExists(f"{place}: {other} and {source} cannot both be moved there")
        for place, source in targets.items():
            self.rename(source, place, replace=True)

    def rename(self, path1: str, path2: str, replace: bool = False, **_options: Any) -> None:
        """Give a file or directory exactly this new path, by one atomic change.

        `FileExists` if the path is taken, unless ``replace`` and both are files. Missing parents
        of the new path are made.
        """
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            self.client.rename(source, target, replace=replace)
        except FileMissing:
            if not self._lacks_parent(source, target):
                raise
            self.client.rename(source, target, replace=replace)

    def clone(self, path1: str, path2: str, replace: bool = False, **_options: Any) -> None:
        """Copy a file or a whole directory, as it is at one moment, without moving its bytes.

        `FileExists` if the path is taken, unless ``replace`` and both are files. Missing parents
        of the new path are made.
        """
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            self.client.clone(source, target, replace=replace)
        except FileMissing:
            if not self._lacks_parent(source, target):
                raise
            self.client.clone(source, target, replace=replace)

    def cp_file(self, path1: str, path2: str, **_options: Any) -> None:
        """Copy a file by cloning it; of a directory, make an empty one."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(source):
            self.makedirs(target, exist_ok=True)
        elif source != target:
            self.clone(source, target, replace=True)

    def _lacks_parent(self, source: str, target: str) -> bool:
        """Whether the target's parent was what is missing; then it is there now."""
        parent = self._parent(target)
        if not self.exists(source) or self.exists(parent):
            return False
        self.makedirs(parent, exist_ok=True)
        return True
