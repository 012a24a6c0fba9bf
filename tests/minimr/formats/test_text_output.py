"""The text form: bytes as they are, and never a record that reads as another."""

import io
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from minimr.errors import AmbiguousOutput
from minimr.formats.part_writer import OutputSummary, PartWriter
from minimr.outputs import Text
from minimr.pairs import from_python

SAFE = st.binary(max_size=8).filter(lambda text: b"\t" not in text and b"\n" not in text)


def write(
    keys: list[Any], values: list[Any], *, escape: bool = False
) -> tuple[bytes, OutputSummary]:
    file = io.BytesIO()
    output = PartWriter(file, Text(escape=escape))
    output.write(from_python(keys, values).slice(0, 1))
    output.write(from_python(keys, values).slice(1))
    summary = output.finish()
    return file.getvalue(), summary


@given(rows=st.lists(st.tuples(SAFE, st.binary(max_size=8).map(lambda v: v.replace(b"\n", b"")))))
def test_records_are_lines_of_key_tab_value(rows: list[tuple[bytes, bytes]]) -> None:
    text, summary = write([key for key, _ in rows], [value for _, value in rows])
    assert text == b"".join(key + b"\t" + value + b"\n" for key, value in rows)
    assert summary.size_bytes == len(text)
    assert summary.xxh3 == xxhash.xxh3_64_hexdigest(text)
    assert summary.record_count == len(rows)
    assert summary.min_key == (repr(min(rows)[0]) if rows else None)
    assert summary.max_key == (repr(max(key for key, _ in rows)) if rows else None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ü", "ü"),
        (-5, "-5"),
        (2**63 - 1, f"{2**63 - 1}"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (2.0, "2.0"),
    ],
)
def test_values_are_written_as_python_would_show_them(value: Any, text: str) -> None:
    assert write([value], [value])[0] == f"{text}\t{text}\n".encode()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (b"a\tb", b"v", ["key", r"b'a\tb' -> b'v'", "a tab"]),
        (b"a\nb", b"v", ["key", "a line feed"]),
        (b"k", b"a\nb", ["value", r"b'k' -> b'a\nb'", "a line feed"]),
        ("k\t", 1, ["key", "'k\\t' -> 1"]),
    ],
)
def test_a_record_that_could_be_read_as_another_is_named(
    key: Any, value: Any, words: list[str]
) -> None:
    others, numbers = [type(key)()] * 3, [type(value)()] * 3
    with pytest.raises(AmbiguousOutput) as caught:
        write([*others, key, *others], [*numbers, value, *numbers])
    assert all(word in caught.value.message for word in [*words, "escape=true"])


def test_a_tab_in_a_value_is_no_ambiguity() -> None:
    assert write([b"k"], [b"a\tb"])[0] == b"k\ta\tb\n"


@given(rows=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), min_size=1))
def test_escaped_records_can_be_read_back(rows: list[tuple[bytes, bytes]]) -> None:
    text, _ = write([key for key, _ in rows], [value for _, value in rows], escape=True)
    lines = text.split(b"\n")[:-1]
    assert len(lines) == len(rows)
    assert [tuple(map(unescape, line.split(b"\t"))) for line in lines] == rows


def unescape(text: bytes) -> bytes:
    made, escaped = bytearray(), False
    for byte in text:
        if escaped:
            made += {0x5C: b"\\", 0x74: b"\t", 0x6E: b"\n"}[byte]
            escaped = False
        elif byte == 0x5C:
            escaped = True
        else:
            made.append(byte)
    return bytes(made)
