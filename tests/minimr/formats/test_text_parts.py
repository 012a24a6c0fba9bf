"""Text parts become a table again."""

import io

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from minimr.formats.part_writer import PartWriter
from minimr.formats.text_parts import read_text_parts
from minimr.outputs import Text
from minimr.pairs import from_python


def rows(table: pa.Table) -> list[tuple[object, object]]:
    return [(row["key"], row["value"]) for row in table.to_pylist()]


def test_no_parts_and_empty_parts_give_an_empty_table() -> None:
    assert read_text_parts([], escaped=False).num_rows == 0
    assert read_text_parts([b"", b""], escaped=False).num_rows == 0


def test_lines_are_cut_at_their_first_tab() -> None:
    table = read_text_parts([b"a\tx\ty\n\t\n", b"b\t1\n"], escaped=False)
    assert rows(table) == [("a", "x\ty"), ("", ""), ("b", "1")]


def test_values_are_numbers_only_if_all_are_plain_decimals() -> None:
    for values, expected in [
        (b"1 -20 0", [1, -20, 0]),
        (b"1 02", ["1", "02"]),
        (b"1 1.5", ["1", "1.5"]),
        (b"9223372036854775808", ["9223372036854775808"]),
    ]:
        content = b"".join(b"k\t" + value + b"\n" for value in values.split())
        assert read_text_parts([content], escaped=False)["value"].to_pylist() == expected


def test_bytes_that_are_no_text_stay_bytes() -> None:
    table = read_text_parts([b"\xff\t1\n"], escaped=False)
    assert rows(table) == [(b"\xff", 1)]


@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), min_size=1))
def test_escaped_output_reads_back_as_it_was(pairs: list[tuple[bytes, bytes]]) -> None:
    file = io.BytesIO()
    output = PartWriter(file, Text(escape=True))
    output.write(from_python([key for key, _ in pairs], [value for _, value in pairs]))
    output.finish()
    table = read_text_parts([file.getvalue()], escaped=True)
    as_bytes = [
        tuple(str(cell).encode() if not isinstance(cell, bytes) else cell for cell in row)
        for row in rows(table)
    ]
    assert as_bytes == pairs
