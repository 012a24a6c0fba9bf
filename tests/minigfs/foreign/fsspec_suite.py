"""fsspec's own suites for file systems: the rules of copy, get, put, pipe and open."""

import uuid
from collections.abc import Callable, Iterator

import fsspec
import fsspec.tests.abstract as abstract
import pytest

from minigfs.fs import MinigfsFileSystem


class MinigfsFixtures(abstract.AbstractFixtures):
    @pytest.fixture(scope="class")
    @classmethod
    def fs(cls) -> MinigfsFileSystem:
        return fsspec.filesystem("minigfs")

    @pytest.fixture
    def fs_path(self, fs: MinigfsFileSystem) -> Iterator[str]:
        path = f"/abstract-{uuid.uuid4().hex}"
        fs.makedirs(path)
        yield path
        fs.rm(path, recursive=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)


class TestCopy(MinigfsFixtures, abstract.AbstractCopyTests):
    pass


class TestGet(MinigfsFixtures, abstract.AbstractGetTests):
    pass


class TestPut(MinigfsFixtures, abstract.AbstractPutTests):
    pass


class TestPipe(MinigfsFixtures, abstract.AbstractPipeTests):
    pass


class TestOpen(MinigfsFixtures, abstract.AbstractOpenTests):
    pass
