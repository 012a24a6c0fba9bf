"""What the shuffle carries, and what it refuses."""

import enum
import math

import numpy as np
import pyarrow as pa
import pytest

from minimr.errors import UnsupportedType
from minimr.pairs import concat_pairs, from_arrow, from_python, type_name


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
        ([True], ["bool"]),
        ([None], ["NoneType"]),
        ([[1]], ["list"]),
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
        (pa.array([True, False]), "bool"),
        (pa.array([2**63, 1], pa.uint64()), "does not fit"),
        (pa.array([1.0, math.nan]), "NaN"),
        (pa.array([[1], [2]]), "list"),
    ],
)
def test_an_arrow_column_that_jobs_cannot_carry_is_refused(key: pa.Array, word: str) -> None:
    with pytest.raises(UnsupportedType, match=word):
        from_arrow(pa.table({"key": key, "value": [1, 2]}))


def test_columns_other_than_key_and_value_are_named() -> None:
    with pytest.raises(UnsupportedType, match="'url', 'count'"):
        from_arrow(pa.table({"url": [b"a"], "count": [1]}))


def test_minus_zero_is_the_key_zero() -> None:
    assert str(from_python([-0.0], [1]).column(0)[0].as_py()) == "0.0"


def test_batches_of_different_types_are_not_put_together() -> None:
    with pytest.raises(UnsupportedType, match="bytes and str"):
        concat_pairs([from_python([b"a"], [1]), from_python(["a"], [1])])
