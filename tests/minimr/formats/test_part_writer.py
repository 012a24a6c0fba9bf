"""Every output format reads back as what was written, whatever batches the pairs came in."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import minimr
from minimr import outputs
from minimr.errors import AmbiguousOutput, JobUsageError
from minimr.formats.part_reader import read_parts
from minimr.formats.part_writer import OutputSummary, PartWriter
from minimr.outputs import Compression, OutputFormat
from minimr.pairs import from_python

Rows = Sequence[tuple[Any, Any]]
EXAMPLES = settings(max_examples=60)


def written(
    rows: Rows, chosen: OutputFormat, compression: Compression = "", cuts: Sequence[int] = ()
) -> tuple[bytes, OutputSummary]:
    file = io.BytesIO()
    writer = PartWriter(file, chosen, compression)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for start, end in pairwise(bounds):
        if end > start:
            keys, values = zip(*rows[start:end], strict=True)
            writer.write(from_python(list(keys), list(values)))
    summary = writer.finish()
    content = file.getvalue()
    assert summary.size_bytes == len(content)
    assert summary.xxh3 == xxhash.xxh3_64_hexdigest(content)
    assert summary.record_count == len(rows)
    return content, summary


def unpacked(content: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return gzip.decompress(content)
    if compression == "zstd":
        stream = pa.CompressedInputStream(pa.BufferReader(content), "zstd")
        return bytes(stream.read())
    return content


TEXTS = st.text(st.sampled_from('ab",\n\r\t é\\'), max_size=5)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), max_size=20)
PACKINGS = st.sampled_from(["", "gzip", "zstd"])


@EXAMPLES
@given(rows=ROWS, cuts=st.lists(st.integers(0, 20), max_size=3), compression=PACKINGS,
       header=st.booleans())  # fmt: skip
def test_csv_is_what_pythons_parser_reads(
    rows: Rows, cuts: list[int], compression: Compression, header: bool
) -> None:
    content, _ = written(rows, outputs.Csv(header=header), compression, cuts)
    text = unpacked(content, compression).decode()
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert found == [["key", "value"]] * header + [list(row) for row in rows]


def test_csv_keeps_bytes_that_are_not_text() -> None:
    assert written([(b"\xff", b'\xfe"')], outputs.Csv())[0] == b'\xff,"\xfe"""\n'


@EXAMPLES
@given(rows=ROWS, cuts=st.lists(st.integers(0, 20), max_size=3), compression=PACKINGS)
def test_json_lines(rows: Rows, cuts: list[int], compression: Compression) -> None:
    content, _ = written(rows, outputs.JsonLines(), compression, cuts)
    lines = unpacked(content, compression).decode().splitlines() if not rows else (
        unpacked(content, compression).decode().split("\n")[:-1]
    )  # fmt: skip
    assert [json.loads(line) for line in lines] == [
        {"key": key, "value": value} for key, value in rows
    ]


def test_json_lines_of_other_types() -> None:
    rows = [((1, b"x"), date(2024, 5, 1))]
    assert written(rows, outputs.JsonLines())[0] == b'{"key":[1,"x"],"value":"2024-05-01"}\n'
    with pytest.raises(AmbiguousOutput, match=r"b'\\xff' is not UTF-8"):
        written([(b"\xff", 1)], outputs.JsonLines())
    for value in (float("nan"), float("inf"), (1, (float("-inf"),))):
        with pytest.raises(AmbiguousOutput, match="no number of JSON"):
            written([(1, value)], outputs.JsonLines())


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_parquet_and_arrow(count: int, compression: Compression) -> None:
    rows = [(b"key %d" % n, n * 1.5) for n in range(count)]
    expected = [{"key": key, "value": value} for key, value in rows]
    content, _ = written(rows, outputs.Parquet(), compression, [3, 700])
    table = pq.read_table(pa.BufferReader(content))
    assert table.to_pylist() == expected
    assert table.schema.field("key").type == pa.binary()
    if compression == "gzip":
        with pytest.raises(JobUsageError, match="use zstd"):
            written(rows, outputs.ArrowIpc(), compression)
        return
    content, _ = written(rows, outputs.ArrowIpc(), compression, [3, 700])
    assert pa.ipc.open_file(pa.BufferReader(content)).read_all().to_pylist() == expected


def test_tables_of_tuples_and_none_are_readable_by_others() -> None:
    content, _ = written([(("a", 1), None)], outputs.Parquet())
    assert pq.read_table(pa.BufferReader(content)).to_pylist() == [
        {"key": '["a",1]', "value": None}
    ]


@pytest.mark.parametrize("chosen", [outputs.Parquet(), outputs.ArrowIpc(), outputs.Text()])
@pytest.mark.parametrize("compression", ["", "zstd"])
def test_the_bytes_do_not_depend_on_the_batches(
    chosen: OutputFormat, compression: Compression
) -> None:
    rows = [(b"%d" % n, b"v" * (n % 4000)) for n in range(20_000)]  # 40 MB: more than two groups
    once, _ = written(rows, chosen, compression)
    assert written(rows, chosen, compression, [1, 5000, 5001, 17_777])[0] == once


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_packed_text_of_several_megabytes_and_of_nothing(compression: Compression) -> None:
    rows = [(b"%d" % n, b"x" * 100) for n in range(30_000)]
    content, _ = written(rows, outputs.Text(), compression, [10, 20_000])
    assert unpacked(content, compression) == b"".join(b"%s\t%s\n" % row for row in rows)
    assert unpacked(written([], outputs.Text(), compression)[0], compression) == b""


def test_lines_and_raw_values() -> None:
    rows = [(b"k", b"a\xff"), (b"k", b""), (b"l", b"b\tc")]
    assert written(rows, outputs.Lines())[0] == b"a\xff\n\nb\tc\n"
    assert written(rows, outputs.Raw())[0] == b"a\xffb\tc"
    assert written([(1, 2)], outputs.Raw())[0] == b"2"
    with pytest.raises(AmbiguousOutput, match="a line feed"):
        written([(b"k", b"a\nb")], outputs.Lines())


class Counting:
    """A format of somebody's own: how many rows each batch had."""

    suffix = ".counts"

    def open(self, file: IO[bytes]) -> "OpenCounting":
        return OpenCounting(file)


class OpenCounting:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, table: pa.RecordBatch) -> None:
        self.file.write(b"%d\n" % table.num_rows)

    def close(self) -> None:
        self.file.write(b"end\n")


def test_a_format_of_users() -> None:
    rows = [(b"a", b"b")] * 3
    assert written(rows, Counting(), "", [1])[0] == b"1\n2\nend\n"
    assert outputs.part_suffix(Counting(), "gzip") == ".counts.gz"


@pytest.mark.parametrize(
    ("given_settings", "name"),
    [
        ({}, "part-r-00000"),
        ({"compression": "gzip"}, "part-r-00000.gz"),
        ({"output_format": "parquet", "compression": "zstd"}, "part-r-00000.parquet"),
        ({"output_format": "arrow"}, "part-r-00000.arrow"),
        ({"output_format": "jsonl", "compression": "zstd"}, "part-r-00000.jsonl.zst"),
        ({"output_format": "csv", "output.header": "true"}, "part-r-00000.csv"),
    ],
)
def test_the_output_of_a_job_is_the_input_of_the_next(
    tmp_path: Path, given_settings: dict[str, str], name: str
) -> None:
    (tmp_path / "in").write_bytes(b"b\na\nb\n")
    count = minimr.Job("count", map=lambda line: [(line, 1)], reduce=minimr.agg.sum)
    result = minimr.run(
        count, input=str(tmp_path / "in"), output=str(tmp_path / "out"), settings=given_settings
    )
    assert [part.name for part in result.parts] == [name]
    assert [tuple(map(as_text, row.values())) for row in result.to_arrow().to_pylist()] == [
        ("a", "1"), ("b", "2"),
    ]  # fmt: skip
    copy = minimr.Job("copy", map=lambda record: [(1, as_text(record))], input_format="auto")
    again = minimr.run(copy, input=result.output, output=str(tmp_path / "again"))
    has_header = "output.header" in given_settings
    assert again.counters["map.input_records"] == (3 if has_header else 2)


@pytest.mark.parametrize("has_header", [False, True])
def test_columns_of_csv_have_one_type_and_no_nulls_whatever_the_parts(*, has_header: bool) -> None:
    chosen = outputs.Csv(header=has_header)
    parts = [[("1", "NA")], [], [("a", ""), ("b", "null")], [("2", "NA")] * 200_000]
    contents = [written(rows, chosen)[0] for rows in parts]
    table = read_parts(contents, chosen, "")
    assert list(zip(*table.to_pydict().values(), strict=True)) == [
        r for part in parts for r in part
    ]


def test_columns_of_json_lines_without_a_common_type_are_json_text() -> None:
    parts = [[((1, "a"), 1)], [], [((None,), 2)]]
    contents = [written(rows, outputs.JsonLines())[0] for rows in parts]
    table = read_parts(contents, outputs.JsonLines(), "")
    assert table.to_pydict() == {"key": ['[1,"a"]', "[null]"], "value": [1, 2]}


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({"output_format": "xml"}, "'xml' is none of text, lines, raw, csv"),
        ({"compression": "rar"}, "compression='rar' is none of gzip, zstd, none"),
        ({"output.header": "true"}, "Text has no option output.header"),
        ({"escape": "maybe"}, "escape='maybe': must be true or false"),
        ({"output_format": "raw", "escape": "true"}, "escape=true is for output_format=text"),
    ],
)
def test_wrong_formats_are_refused_before_any_work(
    tmp_path: Path, given_settings: dict[str, str], words: str
) -> None:
    (tmp_path / "in").write_bytes(b"b\n")
    count = minimr.Job("count", map=lambda line: [(line, 1)], reduce=minimr.agg.sum)
    with pytest.raises(JobUsageError, match=words):
        minimr.run(
            count, input=str(tmp_path / "in"), output=str(tmp_path / "o"), settings=given_settings
        )


def test_keys_of_tuples_of_different_types_have_a_least_and_a_greatest_over_all_batches() -> None:
    rows = [((element, 1), 1) for element in (2, "b", None, b"a", date(2024, 5, 1), (3,))]
    for cuts in ((), range(len(rows))):
        _, summary = written(rows, outputs.Text(), cuts=cuts)
        assert (summary.min_key, summary.max_key) == ("(None, 1)", "((3,), 1)")
