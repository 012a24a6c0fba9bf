"""PyFilesystem2's suite for file systems, on ours through an adapter as one would write it."""

import unittest
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar, cast

import fsspec
from fs import errors
from fs.base import FS
from fs.enums import ResourceType
from fs.info import Info
from fs.mode import Mode
from fs.path import dirname
from fs.permissions import Permissions
from fs.subfs import SubFS
from fs.test import FSTestCases

from minigfs.fs import MinigfsFileSystem


@contextmanager
def errors_of(path: str) -> Iterator[None]:
    """Theirs have names of their own for what the operating system's errors say."""
    try:
        yield
    except FileNotFoundError as error:
        raise errors.ResourceNotFound(path, exc=error) from error
    except IsADirectoryError as error:
        raise errors.FileExpected(path, exc=error) from error


class MinigfsFS(FS):  # type: ignore[misc]  # untyped
    """A directory of minigfs as PyFilesystem2 sees it."""

    _meta: ClassVar = {
        "case_insensitive": False,
        "invalid_path_chars": "\0",
        "network": True,
        "read_only": False,
        "supports_mtime": False,
        "supports_rename": False,
        "thread_safe": True,
        "unicode_paths": True,
        "virtual": False,
    }

    def __init__(self, ours: MinigfsFileSystem, root: str) -> None:
        super().__init__()
        self.ours = ours
        self.root = root

    def _path(self, path: str) -> str:
        return self.root + str(self.validatepath(path)).rstrip("/")

    def getinfo(self, path: str, namespaces: Collection[str] | None = None) -> Info:
        self.check()
        with errors_of(path):
            try:
                found = self.ours.info(self._path(path))
            except NotADirectoryError as error:
                raise errors.ResourceNotFound(path, exc=error) from error
        is_directory = found["type"] == "directory"
        name = "" if path in ("", "/") else found["name"].rsplit("/", 1)[-1]
        raw: dict[str, dict[str, object]] = {"basic": {"name": name, "is_dir": is_directory}}
        if namespaces and "details" in namespaces:
            raw["details"] = {
                "size": found["size"],
                "type": int(ResourceType.directory if is_directory else ResourceType.file),
                "created": found["created"],
                "modified": found["mtime"],
            }
        return Info(raw)

    def listdir(self, path: str) -> list[str]:
        self.check()
        if not self.getinfo(path).is_dir:
            raise errors.DirectoryExpected(path)
        return [name.rsplit("/", 1)[-1] for name in self.ours.ls(self._path(path), detail=False)]

    def makedir(
        self, path: str, permissions: Permissions | None = None, recreate: bool = False
    ) -> SubFS:
        self.check()
        where = self._path(path)
        with errors_of(path):
            try:
                self.ours.mkdir(where, create_parents=False)
            except FileExistsError as error:
                if not (recreate and self.isdir(path)):
                    raise errors.DirectoryExists(path, exc=error) from error
            except NotADirectoryError as error:
                raise errors.ResourceNotFound(path, exc=error) from error
        return self.opendir(path)

    def openbin(
        self, path: str, mode: str = "r", buffering: int = -1, **_options: object
    ) -> BinaryIO:
        self.check()
        Mode(mode).validate_bin()
        return cast("BinaryIO", self._open(path, Mode(mode).to_platform_bin()))

    def open(
        self,
        path: str,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str = "",
        **_options: object,
    ) -> Any:
        self.check()
        Mode(mode).validate()
        text = {"encoding": encoding or "utf-8", "errors": errors, "newline": newline}
        return self._open(path, Mode(mode).to_platform(), **({} if "b" in mode else text))

    def _open(self, path: str, mode: str, **text: str | None) -> Any:
        where = self._path(path)
        if Mode(mode).create and not self.isdir(dirname(self.validatepath(path))):
            raise errors.ResourceNotFound(path)
        with errors_of(path):
            try:
                return self.ours.open(where, mode, **text)
            except FileExistsError as error:
                raise errors.FileExists(path, exc=error) from error
            except NotADirectoryError as error:
                raise errors.ResourceNotFound(path, exc=error) from error

    def remove(self, path: str) -> None:
        self.check()
        with errors_of(path):
            self.ours.rm_file(self._path(path))

    def removedir(self, path: str) -> None:
        self.check()
        if self.validatepath(path) in ("", "/"):
            raise errors.RemoveRootError
        with errors_of(path):
            try:
                self.ours.rmdir(self._path(path))
            except NotADirectoryError as error:
                raise errors.DirectoryExpected(path, exc=error) from error
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise errors.DirectoryNotEmpty(path, exc=error) from error

    def setinfo(self, path: str, info: Mapping[str, Mapping[str, object]]) -> None:
        """There is nothing to set: the master keeps the times (``supports_mtime`` says so)."""
        self.getinfo(path)


class TestMinigfs(FSTestCases, unittest.TestCase):  # type: ignore[misc]
    def make_fs(self) -> MinigfsFS:
        ours = fsspec.filesystem("minigfs")
        root = f"/pyfilesystem-{uuid.uuid4().hex}"
        ours.makedirs(root)
        return MinigfsFS(ours, root)

    def destroy_fs(self, fs: Any) -> None:
        fs.ours.rm(fs.root, recursive=True)
        super().destroy_fs(fs)
