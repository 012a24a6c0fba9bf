"""The sort job against Python's sort, over all parts together."""

import random
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimr.errors import JobFailed, JobUsageError
from minimr.jobs.sort import descending_key, number_key
from minimr.registry import load_job
from tests import oracles
from tests.jobs.job_runs import JobRuns

Key = Callable[[bytes], Any]


@pytest.fixture(params=range(3))
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> JobRuns:
    return JobRuns(tmp_path, random.Random(request.param))


def lines(rng: random.Random, count: int) -> list[bytes]:
    words = [
        b"",
        b"a",
        b"ab",
        b"a\tb",
        b"\0",
        b"a\0",
        b"\xff",
        b"\xff\xfe",
        b"b\r",
        b"zz\tz\tz",
        b" a",
    ]
    return [b"".join(rng.choices(words, k=rng.randrange(4))) for _ in range(count)]


def key_of_line(line: bytes) -> bytes:
    return line.partition(b"\t")[0]


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    ("records", "key_bytes", "key"),
    [
        ("lines", None, lambda line: line),
        ("lines", "1:3", lambda line: line[1:3]),
        ("keyvalue", None, key_of_line),
        ("keyvalue", "0:1", lambda line: key_of_line(line)[0:1]),
    ],
)
def test_lines(
    runs: JobRuns, tmp_path: Path, records: str, key_bytes: str | None, key: Key, order: str,
    unique: bool,
) -> None:  # fmt: skip
    data = lines(runs.rng, 2000)
    (tmp_path / "in").write_bytes(b"\n".join(data) + b"\n")
    settings = {"records": records, "order": order, "unique": "true" if unique else "false"}
    if key_bytes is not None:
        settings["key_bytes"] = key_bytes
    result = runs.run("sort", tmp_path / "in", settings)
    expected = oracles.sorted_records(data, key, descending=order == "desc", unique=unique)
    assert oracles.lines_of(b"".join(runs.parts(result))) == expected


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("width", "key"), [(100, (0, 10)), (16, (3, 5)), (7, (0, 7)), (1, (0, 1))])
def test_binary_records(
    runs: JobRuns, tmp_path: Path, width: int, key: tuple[int, int], order: str, unique: bool
) -> None:
    alphabet = [bytes([byte]) for byte in (0, 1, 9, 10, 127, 128, 255)]
    kinds = [b"".join(runs.rng.choices(alphabet, k=width)) for _ in range(300)]
    data = runs.rng.choices(kinds, k=1500)
    (tmp_path / "in").write_bytes(b"".join(data))
    settings = {"order": order, "unique": "true" if unique else "false"}
    if width != 100:
        settings |= {"record_bytes": str(width), "key_bytes": f"{key[0]}:{key[1]}"}
    result = runs.run("sort", tmp_path / "in", settings)
    start, end = key
    expected = oracles.sorted_records(
        data, lambda record: record[start:end], descending=order == "desc", unique=unique
    )
    assert b"".join(runs.parts(result)) == b"".join(expected)


@pytest.mark.parametrize("data", [b"", bytes(100), bytes(100) * 3000])
def test_constant_and_no_records(runs: JobRuns, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in").write_bytes(data)
    assert b"".join(runs.parts(runs.run("sort", tmp_path / "in", {}))) == data
    result = runs.run("sort", tmp_path / "in", {"unique": "true"})
    assert b"".join(runs.parts(result)) == data[:100]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_numbers_are_compared_exactly(runs: JobRuns, tmp_path: Path, order: str) -> None:
    rng = runs.rng
    data = [
        b"9007199254740993", b"9007199254740992", b"-9007199254740993", b"1e400", b"-1e400", b".5",
        b"0.1", b"0.10000000000000000000000001", b"+7", b"007", b"7.0", b" 7\r", b"-0", b"0",
        *(b"%d.%de%d" % (rng.randrange(-99, 99), rng.randrange(99), rng.randrange(-9, 9))
          for _ in range(500)),
    ]  # fmt: skip
    rng.shuffle(data)
    data = [number + b"\trest" for number in data]
    (tmp_path / "in").write_bytes(b"\n".join(data))
    settings = {"records": "keyvalue", "numeric": "true", "order": order}
    result = runs.run("sort", tmp_path / "in", settings)
    expected = oracles.sorted_records(
        data,
        lambda line: Decimal(key_of_line(line).decode().strip()),
        descending=order == "desc",
        unique=False,
    )
    assert oracles.lines_of(b"".join(runs.parts(result))) == expected


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False) | st.integers().map(Decimal)


@given(one=NUMBERS, other=NUMBERS)
@example(one=Decimal("-1.1"), other=Decimal("-1.10"))
@example(one=Decimal("-1.1"), other=Decimal("-1.11"))
def test_encoded_numbers_order_as_numbers(one: Decimal, other: Decimal) -> None:
    encoded = [number_key(f"{number:e}".encode()) for number in (one, other)]
    for keys in (encoded, [descending_key(key) for key in encoded[::-1]]):
        assert (keys[0] < keys[1]) == (one < other)
        assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize("key", ["", "x", "1x", ".", "e5", "1e", "--1", "nan", "inf", "1 2", "0x1"])
def test_a_key_that_is_no_number_is_an_error_that_shows_it(
    tmp_path: Path, runs: JobRuns, key: str
) -> None:
    (tmp_path / "in").write_bytes(b"1\n2\n" + key.encode() + b"\n3\n")
    with pytest.raises(JobFailed, match=re.escape(f"the key {key.encode()!r} is no number")):
        runs.run("sort", tmp_path / "in", {"records": "lines", "numeric": "true"})


def test_a_file_that_ends_inside_a_record_is_an_error_that_says_where(
    tmp_path: Path, runs: JobRuns
) -> None:
    (tmp_path / "in").write_bytes(bytes(1050))
    with pytest.raises(JobFailed, match=r"/in at byte 1000: .* 50 bytes that are no whole record"):
        runs.run("sort", tmp_path / "in", {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"records": "text"}, "records='text' is none of binary, lines, keyvalue"),
        ({"record_bytes": "0"}, "record_bytes='0' must be a whole number from 1"),
        ({"record_bytes": "9", "records": "lines"}, "is for records=binary, not lines"),
        ({"key_bytes": "5"}, "key_bytes='5' must be A:B"),
        ({"key_bytes": "5:5"}, "key_bytes='5:5' must be A:B"),
        ({"key_bytes": "90:101"}, "key_bytes='90:101' ends behind a record of 100 bytes"),
        ({"order": "down"}, "order='down' is none of asc, desc"),
        ({"numeric": "1"}, "numeric='1' is none of false, true"),
        ({"key": "1"}, "it knows records, record_bytes, key_bytes, order, numeric, unique"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(
    settings: dict[str, str], message: str
) -> None:
    with pytest.raises(JobUsageError, match=re.escape(message)):
        load_job("sort", settings)
