"""Zarr's suite for stores, on ours through the store that Zarr has for fsspec."""

import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from zarr.core.buffer import Buffer, cpu
from zarr.storage import FsspecStore
from zarr.testing.store import StoreTests


class TestMinigfs(StoreTests[FsspecStore, cpu.Buffer]):
    store_cls = FsspecStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self) -> Iterator[dict[str, Any]]:
        ours = fsspec.filesystem("minigfs")
        root = f"/zarr-{uuid.uuid4().hex}"
        ours.makedirs(root)
        yield {"fs": AsyncFileSystemWrapper(ours, asynchronous=True), "path": root}
        ours.rm(root, recursive=True)

    async def set(self, store: FsspecStore, key: str, value: Buffer) -> None:
        fsspec.filesystem("minigfs").pipe_file(f"{store.path}/{key}", value.to_bytes())

    async def get(self, store: FsspecStore, key: str) -> Buffer:
        content = fsspec.filesystem("minigfs").cat_file(f"{store.path}/{key}")
        return self.buffer_cls.from_bytes(content)

    def test_store_repr(self, store: FsspecStore) -> None:
        assert "AsyncFileSystemWrapper" in repr(store)

    def test_store_supports_writes(self, store: FsspecStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: FsspecStore) -> None:
        assert store.supports_listing
