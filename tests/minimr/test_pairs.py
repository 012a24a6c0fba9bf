"""What the shuffle carries, and what it refuses."""

import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from minimr.column_text import as_text
from minimr.column_types import stored, stored_as, to_objects, type_name
from minimr.errors import UnsupportedType
from minimr.pairs import concat_pairs, from_arrow, from_python

DAY = date(2024, 2, 29)
NOON = datetime.fromisoformat("2024-02-29T12:00:00")
LAST = datetime.fromisoformat("9999-12-31T23:59:59.999999")
TUPLES = [(), (1, "a", b"\xff", None), ((DAY,), math.inf)]
COLUMNS: list[tuple[str, list[Any], list[str]]] = [
    ("bytes", [b"a", b"\xff"], ["a", "\\xff"]),
    ("str", ["a", "é"], ["a", "é"]),
    ("int", [1, -5], ["1", "-5"]),
    ("float", [1.0, 1e16, -math.inf], ["1.0", "1e+16", "-inf"]),
    ("bool", [True, False], ["true", "false"]),
    ("date", [DAY, date.min], ["2024-02-29", "0001-01-01"]),
    ("time", [time(1, 2, 3), time(1, 2, 3, 4)], ["01:02:03", "01:02:03.000004"]),
    ("datetime without time zone", [NOON, LAST], [NOON.isoformat(), LAST.isoformat()]),
    ("datetime with time zone", [NOON.replace(tzinfo=UTC)] * 2, [f"{NOON.isoformat()}+00:00"] * 2),
    ("tuple", TUPLES, ["[]", '[1,"a","\\\\xff",null]', '[["2024-02-29"],"inf"]']),
    ("None", [None, None], ["", ""]),
]


@pytest.mark.parametrize(
    ("keys", "name"),
    [([b"a", b""], "bytes"), (["a", "ü"], "str"), ([1, -(2**63)], "int"), ([1.5, -2.0], "float")],
)
def test_each_kind_of_python_object_comes_back_as_it_was(keys: list[object], name: str) -> None:
    pairs = from_python(keys, keys)
    assert type_name(pairs.schema.field("key").type) == name
    assert pairs.column(0).to_pylist() == keys
    assert pairs.column(1).to_pylist() == keys


def test_subclasses_and_numpy_numbers_count_as_what_they_are() -> None:
    class Level(enum.IntEnum):
        LOW = 1

    pairs = from_python([np.int64(5), Level.LOW], [np.float64(0.5), 1.0])
    assert pairs.column(0).to_pylist() == [5, 1]
    assert pairs.column(1).to_pylist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([b"a", "a"], ["bytes", "str", "one type"]),
        ([1, 1.0], ["int", "float", "one type"]),
        ([None, 1], ["None", "int", "one type"]),
        ([True, 1], ["bool", "int", "one type"]),
        ([[1]], ["list", "codec"]),
        ([(1, [2])], ["tuple", "list", "codec"]),
        ([(1, math.nan)], ["NaN"]),
        ([(1, np.float32("nan"))], ["NaN"]),
        ([(2**63,)], ["tuple", "64 bits"]),
        ([NOON, NOON.replace(tzinfo=UTC)], ["with and without"]),
        ([time(1, tzinfo=UTC)], ["time zone"]),
        ([2**63], ["does not fit"]),
        ([math.nan], ["NaN"]),
        (["\ud800"], ["Unicode"]),
    ],
)
def test_a_key_that_jobs_cannot_carry_is_refused_by_name(
    keys: list[object], words: list[str]
) -> None:
    with pytest.raises(UnsupportedType) as caught:
        from_python(keys, [1] * len(keys))
    assert all(word in caught.value.message for word in words), caught.value.message


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a", b"b"], pa.binary()),
        pa.array([b"a", b"b"], pa.binary(1)),
        pa.array([b"a", b"b"]).dictionary_encode(),
        pa.array([b"a", b"b"], pa.binary_view()),
        pa.chunked_array([[b"a"], [b"b"]]),
    ],
)
def test_every_arrow_form_of_bytes_is_one_type(column: pa.Array) -> None:
    pairs = from_arrow(pa.table({"key": column, "value": pa.array([1, 2], pa.uint8())}))
    assert pairs.column(0).type == pa.large_binary()
    assert pairs.column(0).to_pylist() == [b"a", b"b"]
    assert pairs.column(1).type == pa.int64()


@pytest.mark.parametrize(
    ("key", "word"),
    [
        (pa.array([b"a", None]), "null"),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([b"a", None])), "null"),
        (pa.array([1, 2], pa.duration("s")), "duration"),
        (pa.array([2**63, 1], pa.uint64()), "does not fit"),
        (pa.array([1.0, math.nan]), "NaN"),
        (pa.array([[1], [2]]), "list"),
    ],
)
def test_an_arrow_column_that_jobs_cannot_carry_is_refused(key: pa.Array, word: str) -> None:
    with pytest.raises(UnsupportedType, match=word):
        from_arrow(pa.table({"key": key, "value": [1, 2]}))


def test_nanoseconds_are_refused_and_not_left_out() -> None:
    class Timestamp(datetime):
        """As pandas has it."""

        nanosecond = 1

    moment = Timestamp.fromisoformat("2024-05-01")
    for key in (moment, moment.replace(tzinfo=UTC), (1, (moment,))):
        with pytest.raises(UnsupportedType, match="has nanoseconds"):
            from_python([key], [1])
        with pytest.raises(UnsupportedType, match="has nanoseconds"):
            from_python([1], [key])


def test_columns_other_than_key_and_value_are_named() -> None:
    with pytest.raises(UnsupportedType, match="'url', 'count'"):
        from_arrow(pa.table({"url": [b"a"], "count": [1]}))


def test_minus_zero_is_the_key_zero() -> None:
    assert str(from_python([-0.0], [1]).column(0)[0].as_py()) == "0.0"


def test_batches_of_different_types_are_not_put_together() -> None:
    with pytest.raises(UnsupportedType, match=r"bytes in b'a' -> 1 and str in 'a' -> 1"):
        concat_pairs([from_python([b"a"], [1]), from_python(["a"], [1])])


@pytest.mark.parametrize(("name", "objects", "text"), COLUMNS)
def test_each_type_comes_back_from_a_slice_a_file_and_as_text(
    name: str, objects: list[Any], text: list[str]
) -> None:
    pairs = from_python(objects, objects)
    sent = pa.ipc.read_record_batch(
        pairs.slice(0).serialize(), pa.ipc.read_schema(pairs.schema.serialize())
    )
    for column in (*sent.columns, from_arrow(pa.table(pairs)).column(0), pairs[1:].column(1)):
        assert type_name(column.type) == name
        assert to_objects(column) == objects[-len(column) :]
        assert stored_as(stored(column), column.type).equals(column)
    written = [row.decode("utf-8", "backslashreplace") for row in as_text(pairs[0]).to_pylist()]
    assert written == text


def test_an_instant_comes_back_in_utc() -> None:
    there = NOON.replace(tzinfo=timezone(timedelta(hours=9)))
    (back,) = to_objects(from_python([there], [1]).column(0))
    assert (back, back.tzinfo) == (there, UTC)


def test_zeros_of_either_sign_are_one_key_in_tuples_too() -> None:
    pairs = from_python([(0.0, (1, -0.0)), (-0.0, (1, 0.0))], [-0.0, -0.0])
    one, other = pairs.column(0).storage.to_pylist()
    assert one == other
    assert str(to_objects(pairs.column(1))[0]) == "-0.0"
    narrow = from_python([(np.float32(0.0),), (np.float32(-0.0),), (0.0,)], [1, 1, 1])
    assert len(set(narrow.column(0).storage.to_pylist())) == 1


@pytest.mark.parametrize(("name", "objects", "text"), COLUMNS)
def test_arrow_columns_of_any_unit_are_taken(name: str, objects: list[Any], text: object) -> None:
    units = {
        "date": [pa.date64()],
        "time": [pa.time64("ns")],
        "datetime without time zone": [pa.timestamp("s"), pa.timestamp("ms")],
        "datetime with time zone": [pa.timestamp("s", "Asia/Tokyo")],
        "None": [pa.null()],
    }
    for unit in units.get(name, []):
        column = pa.array([objects[0]], unit)
        pairs = from_arrow(pa.table({"key": column, "value": column}))
        assert type_name(pairs.column(0).type) == name
        assert to_objects(pairs.column(0)) == objects[:1]
