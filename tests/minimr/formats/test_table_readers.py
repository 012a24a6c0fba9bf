"""Parquet and Arrow files: each row in exactly one range, and no more of a file read than that."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from minimr import inputs
from minimr.errors import UnreadableInput
from minimr.formats.readers import reader_of
from minimr.formats.storage import Storage
from minimr.inputs import InputFormat
from tests.minimr.formats.reading import objects, ranges_of, read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("in")


def table_of(count: int) -> pa.Table:
    return pa.table({"n": list(range(count)), "text": [f"row {n}" for n in range(count)]})


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=7)


def write_arrow_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def write_arrow_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


@pytest.mark.parametrize(
    ("chosen", "write"),
    [
        (inputs.Parquet, write_parquet),
        (inputs.ArrowIpc, write_arrow_file),
        (inputs.ArrowIpc, write_arrow_stream),
    ],
)
@pytest.mark.parametrize("count", [0, 1, 50])
def test_tables_are_cut_at_their_groups(
    folder: Path, chosen: Callable[..., InputFormat], write: Callable[[Path, pa.Table], None],
    count: int,
) -> None:  # fmt: skip
    path = folder / f"table-{write.__name__}"
    write(path, table_of(count))
    size = path.stat().st_size
    for cuts in ((), (1,), tuple(range(1, size, 97)), (size // 2, size - 1)):
        found = read(chosen(), ranges_of(path, cuts))
        assert objects(found) == table_of(count).to_pylist()
        rows = [each.place_of(index) for each in found for index in range(each.record_count)]
        assert rows == [(f"file://{path}, row {n}", -1) for n in range(count)]
    found = read(chosen(("text",)), ranges_of(path))
    assert objects(found) == table_of(count).select(["text"]).to_pylist()
    if count:
        with pytest.raises(UnreadableInput, match="no column 'nope': it has n, text"):
            read(chosen(("nope",)), ranges_of(path))


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_large_group_of_rows_comes_a_block_at_a_time(folder: Path, form: str) -> None:
    table = pa.table({"n": list(range(3000)), "text": ["x" * 1000] * 3000})
    path = folder / "large-group"
    if form == "parquet":
        pq.write_table(table, path, use_dictionary=False)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    chosen = inputs.Parquet() if form == "parquet" else inputs.ArrowIpc()
    found = read(chosen, ranges_of(path), block_bytes=64 << 10)
    assert objects(found) == table.to_pylist()
    assert max(each.batch().nbytes for each in found) <= 64 << 10
    assert [each.place_of(0)[0].rpartition(" ")[2] for each in found][1] == str(
        found[0].record_count
    )


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_range_of_a_table_reads_its_own_groups_only(folder: Path, form: str) -> None:
    table = pa.table({"n": list(range(100_000))})
    path = folder / "many-groups"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=5000, use_dictionary=False, compression="none")
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5000)
    read_bytes: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            read_bytes.append(len(content))
            return content

    class CountingStorage(Storage):
        def open_input(self, url: str) -> IO[bytes]:
            return cast("IO[bytes]", Counted(path))

    chosen = inputs.Parquet() if form == "parquet" else inputs.ArrowIpc()
    size = path.stat().st_size
    *_, last = ranges_of(path, (size * 9 // 10,))
    found = list(reader_of(chosen).read([last], CountingStorage(), block_bytes=1 << 20))
    row_count = sum(each.record_count for each in found)
    assert 0 < row_count <= 10_000
    assert sum(read_bytes) < size // 4
    assert found[0].place_of(1)[0] == f"file://{path}, row {100_000 - row_count + 1}"


@pytest.mark.parametrize("chosen", [inputs.Parquet(), inputs.ArrowIpc()])
def test_a_file_that_is_no_table_is_unreadable(folder: Path, chosen: InputFormat) -> None:
    path = folder / "junk"
    for content in (b"ARROW1junk", b"PAR1" + bytes(50), b"text\n"):
        path.write_bytes(content)
        with pytest.raises(UnreadableInput, match="junk"):
            read(chosen, ranges_of(path))
