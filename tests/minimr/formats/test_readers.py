"""Every record of a file in exactly one range of it, in every format, cut and packed in any way."""

import bz2
import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr import inputs
from minimr.errors import JobUsageError, UnreadableInput
from minimr.formats.readers import reader_of
from minimr.formats.records import MalformedRecord
from minimr.formats.storage import Storage
from minimr.inputs import InputFormat
from minimr.messages import FileRange
from tests.minimr.formats.reading import objects, ranges_of, read

EXAMPLES = settings(max_examples=60)
CUTS = st.lists(st.integers(1, 400), max_size=5)
BLOCKS = st.integers(1, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("in")


@EXAMPLES
@given(
    width=st.integers(1, 30), count=st.integers(0, 40), cuts=CUTS, block_bytes=BLOCKS,
    is_packed=st.booleans(),
)  # fmt: skip
def test_fixed_width_records(
    folder: Path, width: int, count: int, cuts: list[int], block_bytes: int, is_packed: bool
) -> None:
    content = bytes(index * 7 % 256 for index in range(width * count))
    path = folder / ("fixed.gz" if is_packed else "fixed")
    path.write_bytes(gzip.compress(content) if is_packed else content)
    found = read(inputs.FixedWidth(width), ranges_of(path, () if is_packed else cuts), block_bytes)
    records = objects(found)
    assert records == [content[at : at + width] for at in range(0, len(content), width)]
    places = [each.place_of(index)[1] for each in found for index in range(each.record_count)]
    assert places == list(range(0, len(content), width))
    assert [row for each in found for row in each.batch().column("record").to_pylist()] == records
    assert is_packed or sum(each.stored_bytes for each in found) == len(content)


def test_a_file_that_ends_inside_a_record_is_an_error_wherever_it_is_cut(folder: Path) -> None:
    path = folder / "ragged"
    path.write_bytes(bytes(25))
    for cuts in ((), (7,), (21,), (24,)):
        with pytest.raises(MalformedRecord, match="5 bytes that are no whole record of 10") as met:
            read(inputs.FixedWidth(10), ranges_of(path, cuts))
        assert met.value.offset == 20


def test_what_is_no_whole_record_can_be_left_out(folder: Path) -> None:
    paths = [folder / "ragged-1", folder / "whole.gz"]
    paths[0].write_bytes(b"0123456789abcde")
    paths[1].write_bytes(gzip.compress(b"9876543210"))
    met: list[MalformedRecord] = []
    found = reader_of(inputs.FixedWidth(10)).read(
        [each for path in paths for each in ranges_of(path)],
        Storage(),
        block_bytes=5,
        on_malformed=met.append,
    )
    assert objects(list(found)) == [b"0123456789", b"9876543210"]
    assert [(error.offset, error.record) for error in met] == [(10, b"abcde")]


@pytest.mark.parametrize("left_bytes", [0, 100, 990, 995])
def test_fixed_records_of_a_file_that_shrank_since_planning_are_an_error(
    folder: Path, left_bytes: int
) -> None:
    path = folder / "shrunk"
    path.write_bytes(bytes(1000))
    planned = ranges_of(path, (300,))
    path.write_bytes(bytes(left_bytes))
    with pytest.raises(UnreadableInput, match="when the job was planned"):
        read(inputs.FixedWidth(10), planned, block_bytes=64)


def test_fixed_records_appended_since_planning_are_not_read(folder: Path) -> None:
    path = folder / "grown"
    path.write_bytes(bytes(25))
    planned = ranges_of(path)
    path.write_bytes(bytes(30))
    with pytest.raises(MalformedRecord, match="5 bytes that are no whole record of 10"):
        read(inputs.FixedWidth(10), planned)


@EXAMPLES
@given(
    lines=st.lists(st.sampled_from([b"", b"k", b"k\tv", b"\tv", b"k\tv\tw\r", b"\xff\t\xfe"])),
    cuts=CUTS,
    block_bytes=BLOCKS,
)
def test_key_value_lines(
    folder: Path, lines: list[bytes], cuts: list[int], block_bytes: int
) -> None:
    path = folder / "pairs"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    found = read(inputs.KeyValue(), ranges_of(path, cuts), block_bytes)
    assert objects(found) == [tuple((*line.split(b"\t", 1), b"")[:2]) for line in lines]
    for each in found:
        rows = each.batch().to_pylist()
        assert [(row["key"], row["value"]) for row in rows] == each.objects()


def test_whole_files_keep_their_paths_and_bytes(tmp_path: Path) -> None:
    files = {"one.html": b"1\n", "two.htm": b"\xff\xfe", "three.txt": b"3", "empty.html": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "packed.html.gz").write_bytes(gzip.compress(b"p" * 3_000_000))
    ranges = [each for path in sorted(tmp_path.iterdir()) for each in ranges_of(path)]
    ranges.append(FileRange(url=f"file://{tmp_path}/empty.html", start=0, length=0, file_bytes=0,
                            name_start=len(f"file://{tmp_path}/")))  # fmt: skip
    found = read(inputs.Files(), ranges, block_bytes=2)
    assert dict(objects(found)) == {**files, "packed.html.gz": b"p" * 3_000_000}
    batches = [each.batch() for each in found]
    assert {row["name"]: row["content"] for batch in batches for row in batch.to_pylist()} == dict(
        objects(found)
    )
    some = read(inputs.Files(suffixes=(".html", ".htm")), ranges)
    assert sorted(name for name, _ in objects(some)) == ["empty.html", "one.html", "two.htm"]


CSV_ROWS = st.lists(
    st.lists(st.sampled_from(["", "a", 'say "x"', "two\nlines", "c,d", "é", " b ", "\r\n"]),
             min_size=2, max_size=2)
)  # fmt: skip


def csv_of(rows: list[list[str]]) -> bytes:
    quoted = [['"' + field.replace('"', '""') + '"' for field in row] for row in rows]
    return "".join(",".join(row) + "\r\n" for row in quoted).encode()


@EXAMPLES
@given(rows=CSV_ROWS, block_bytes=BLOCKS, header=st.booleans())
def test_csv_with_quoted_line_feeds(
    folder: Path, rows: list[list[str]], block_bytes: int, header: bool
) -> None:
    path = folder / "rows.csv"
    path.write_bytes((b"x,y\n" if header else b"") + csv_of(rows))
    found = read(inputs.Csv(header=header), ranges_of(path), block_bytes)
    names = ["x", "y"] if header else ["c0", "c1"]
    as_dicts = [dict(zip(names, row, strict=True)) for row in rows]
    assert objects(found) == (as_dicts if header else rows)
    assert [row for each in found for row in each.batch().to_pylist()] == as_dicts
    content = path.read_bytes()
    for each in found:
        offset = each.place_of(0)[1]
        first = each.batch().to_pylist()[0]
        assert content[offset:].startswith(csv_of([list(first.values())]))


def test_csv_that_is_cut_at_lines(folder: Path) -> None:
    path = folder / "plain.csv"
    path.write_bytes(b"".join(b"%d;%d\n" % (n, n * n) for n in range(200)))
    chosen = inputs.Csv(separator=";", multiline=False)
    assert inputs.cuts_files(chosen, str(path))
    found = read(chosen, ranges_of(path, (1, 2, 3, 500, 777)), block_bytes=64)
    assert objects(found) == [[str(n), str(n * n)] for n in range(200)]
    content = path.read_bytes()
    for each in found:
        for index, row in enumerate(each.objects()):
            assert content[each.place_of(index)[1] :].startswith(";".join(row).encode() + b"\n")


@pytest.mark.parametrize("cuts", [(), (7,), (3, 12)])
def test_an_open_quote_takes_no_other_line_where_rows_are_lines(
    folder: Path, cuts: tuple[int, ...]
) -> None:
    path = folder / "open.csv"
    path.write_bytes(b'a,b\n"c,d\ne,f\n"g,h\n')
    met: list[MalformedRecord] = []
    found = reader_of(inputs.Csv(multiline=False)).read(
        ranges_of(path, cuts), Storage(), block_bytes=64, on_malformed=met.append
    )
    assert objects(list(found)) == [["a", "b"], ["e", "f"]]
    assert [(each.offset, each.record) for each in met] == [(4, b'"c,d'), (13, b'"g,h')]


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Path) -> None:
    path = folder / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbfname,n\r\nx,1\r\n")
    assert objects(read(inputs.Csv(header=True), ranges_of(path))) == [{"name": "x", "n": "1"}]


@pytest.mark.parametrize("header", [b'"a"x,b\n', b"a,a\n"])
def test_a_bad_header_is_never_left_out_as_a_bad_row(folder: Path, header: bytes) -> None:
    path = folder / "header.csv"
    path.write_bytes(header + b"1,2\n3,4\n")
    met: list[MalformedRecord] = []
    found = reader_of(inputs.Csv(header=True)).read(
        ranges_of(path), Storage(), block_bytes=64, on_malformed=met.append
    )
    with pytest.raises(MalformedRecord):
        list(found)
    assert not met


@pytest.mark.parametrize(
    ("chosen", "content", "words", "offset"),
    [
        (inputs.Csv(), b'a,b\n"open,c\nd,e\n', "is no CSV", 4),
        (inputs.Csv(), b"a,b\nc,d,e\n", "3 fields and not 2", 4),
        (inputs.Csv(), b'a,b\n"c"x,d\n', "is no CSV", 4),
        (inputs.Csv(header=True), b"\na,b,a\n1,2,3\n", "has the column 'a' twice", 1),
        (inputs.JsonLines(), b'{"a":1}\n\n{"a":\n', "is no JSON", 9),
        (inputs.JsonLines(), b'"\xff"\n', "is no JSON", 0),
        (inputs.JsonLines(), b"1\n" + b"[" * 99_999 + b"]" * 99_999 + b"\n", "is no JSON", 2),
    ],
)
def test_a_malformed_record_is_named_with_its_file_and_offset(
    folder: Path, chosen: InputFormat, content: bytes, words: str, offset: int
) -> None:
    path = folder / "malformed"
    path.write_bytes(content)
    with pytest.raises(MalformedRecord, match=words) as met:
        read(chosen, ranges_of(path))
    assert (met.value.url, met.value.offset) == (f"file://{path}", offset)


@pytest.mark.parametrize(
    ("chosen", "content", "good", "bad"),
    [
        (inputs.JsonLines(), b'[1]\nx\n\n[2]\n{"\n', [[1], [2]], [(4, b"x"), (11, b'{"')]),
        (inputs.Csv(), b'a,b\n"c"x,d\ne\nf,g\n"h\n', [["a", "b"], ["f", "g"]],
         [(4, b'"c"x,d'), (11, ["e"]), (17, b'"h')]),
    ],
)  # fmt: skip
def test_malformed_records_can_be_left_out(
    folder: Path, chosen: InputFormat, content: bytes, good: list[Any], bad: list[Any]
) -> None:
    path = folder / "some-malformed"
    path.write_bytes(content)
    met: list[MalformedRecord] = []
    found = reader_of(chosen).read(
        ranges_of(path), Storage(), block_bytes=5, on_malformed=met.append
    )
    assert objects(list(found)) == good
    assert [(error.offset, error.record) for error in met] == bad


@EXAMPLES
@given(
    values=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.integers(-5, 5) | st.text(max_size=3))
        | st.integers() | st.none() | st.lists(st.booleans(), max_size=2)
    ),
    cuts=CUTS, block_bytes=BLOCKS,
)  # fmt: skip
def test_json_lines(folder: Path, values: list[Any], cuts: list[int], block_bytes: int) -> None:
    path = folder / "values.jsonl"
    path.write_text("".join(json.dumps(value) + "\n\n" for value in values), encoding="utf-8")
    found = read(inputs.JsonLines(), ranges_of(path, cuts), block_bytes)
    assert objects(found) == values


def test_json_lines_as_batches_have_the_types_of_their_values(folder: Path) -> None:
    path = folder / "typed.jsonl"
    path.write_bytes(b'{"a":1,"b":"x"}\n{"b":"y","c":[1.5]}\n')
    (found,) = read(inputs.JsonLines(), ranges_of(path))
    rows = [{"a": 1, "b": "x", "c": None}, {"a": None, "b": "y", "c": [1.5]}]
    assert found.batch().to_pylist() == rows


def test_json_lines_that_no_column_can_hold_are_named(folder: Path) -> None:
    path = folder / "mixed.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":"x"}\n')
    (found,) = read(inputs.JsonLines(), ranges_of(path))
    with pytest.raises(UnreadableInput, match=r"mixed\.jsonl.* 'a' do not fit one column"):
        found.batch()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


PACKERS = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_are_read_whole_with_all_their_streams(folder: Path, suffix: str) -> None:
    lines = [b"line %d " % n + b"x" * (n % 50) for n in range(40_000)]
    content = b"\n".join(lines)
    half = len(content) // 2
    pack = PACKERS[suffix]
    path = folder / f"lines.{suffix}"
    for packed in (pack(content), pack(content[:half]) + pack(content[half:]) + pack(b"")):
        path.write_bytes(packed)
        found = read(inputs.Lines(), ranges_of(path), block_bytes=100_000)
        assert objects(found) == lines
        assert sum(each.stored_bytes for each in found) <= len(packed)
    path.write_bytes(pack(b""))
    assert read(inputs.Lines(), ranges_of(path)) == []


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_that_are_cut_off_or_damaged_are_errors(folder: Path, suffix: str) -> None:
    content = b"".join(b"%d\n" % (n * n) for n in range(20_000))
    packed = PACKERS[suffix](content)
    path = folder / f"bad.{suffix}"
    for bad in (packed[: len(packed) // 2], packed[:-1], packed[:9], b"no such thing at all"):
        path.write_bytes(bad)
        with pytest.raises(UnreadableInput, match=f"bad.{suffix}"):
            read(inputs.Lines(), ranges_of(path))


class Numbered:
    """A format of somebody's own: records end at ``;``."""

    cuts_files = False

    def read(self, file: IO[bytes], start: int, end: int) -> Iterator[Any]:
        assert (start, end) == (0, -1)
        yield from file.read().split(b";")


class Pairwise:
    """Another: two bytes a record, cut anywhere."""

    cuts_files = True

    def read(self, file: IO[bytes], start: int, end: int) -> Iterator[Any]:
        position = start + start % 2
        file.seek(position)
        while position < end and (record := file.read(2)):
            position += 2
            yield pa.record_batch({"pair": [record]})


def test_formats_of_users(folder: Path) -> None:
    path = folder / "own.gz"
    path.write_bytes(gzip.compress(b"a;b;c"))
    found = read(Numbered(), ranges_of(path))
    assert objects(found) == [b"a", b"b", b"c"]
    assert found[0].place_of(2) == (f"file://{path}, record 2", -1)
    with pytest.raises(JobUsageError, match=r"yield pyarrow\.RecordBatch"):
        found[0].batch()
    path = folder / "pairs"
    path.write_bytes(b"aabbccdd")
    assert inputs.cuts_files(Pairwise(), str(path))
    found = read(Pairwise(), ranges_of(path, (1, 3, 4)))
    assert [each.batch().column("pair")[0].as_py() for each in found] == [
        b"aa",
        b"bb",
        b"cc",
        b"dd",
    ]


def test_files_are_read_by_their_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"[3]\n"))
    (tmp_path / "c.log").write_bytes(b"4\n")
    pq.write_table(pa.table({"n": [0], "text": ["row 0"]}), tmp_path / "d.parquet")
    ranges = [each for path in sorted(tmp_path.iterdir()) for each in ranges_of(path)]
    found = objects(read(inputs.Auto(), ranges))
    assert found == [["1", "2"], [3], b"4", {"n": 0, "text": "row 0"}]
    cuts = [inputs.cuts_files(inputs.Auto(), each.url) for each in ranges]
    assert cuts == [False, True, True, True]


@pytest.mark.parametrize(
    ("job_format", "given", "expected"),
    [
        ("lines", {}, inputs.Lines()),
        ("lines", {"input_format": "csv", "input.header": "true"}, inputs.Csv(header=True)),
        ("csv", {"input.separator": "\\t"}, inputs.Csv(separator="\t")),
        (inputs.Parquet(), {"input.columns": "a,b"}, inputs.Parquet(columns=("a", "b"))),
        ("fixed", {"input.record_bytes": "12"}, inputs.FixedWidth(12)),
    ],
)
def test_a_run_chooses_format_and_options(
    job_format: "str | InputFormat", given: dict[str, str], expected: InputFormat
) -> None:
    assert inputs.chosen_format(job_format, given) == expected


@pytest.mark.parametrize(
    ("job_format", "given", "words"),
    [
        ("xml", {}, "'xml' is none of lines, blocks, keyvalue"),
        ("lines", {"input_format": "xml"}, "'xml' is none of lines"),
        ("blocks", {"input_format": "csv"}, "this job reads blocks and nothing else"),
        (inputs.Files(), {"input_format": "csv"}, "this job reads Files and nothing else"),
        ("csv", {"input.columns": "a"}, "Csv has no option input.columns: it has input.header"),
        ("csv", {"input.header": "yes"}, "input.header='yes': must be true or false"),
        ("fixed", {"input.record_bytes": "x"}, "must be a whole number"),
        ("fixed", {"input.record_bytes": "0"}, "must be a number from 1"),
        ("csv", {"input.separator": "||"}, "must be one character"),
        ("keyvalue", {"input.separator": ""}, "must be at least one character"),
        ("lines", {"input.header": "true"}, "Lines has no option input.header: it has none"),
    ],
)
def test_wrong_formats_and_options_are_named(
    job_format: "str | InputFormat", given: dict[str, str], words: str
) -> None:
    with pytest.raises(JobUsageError, match=words):
        inputs.chosen_format(job_format, given)
