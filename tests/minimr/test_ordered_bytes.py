"""The ordered form of keys: it comes back as it went in, and sorts as the values do."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimr.errors import UnsupportedType
from minimr.ordered_bytes import decode, decode_all, encode, encode_all

EXAMPLES = settings(max_examples=150)
INTS = st.integers(-(2**63), 2**63 - 1)
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "bytes": st.binary(max_size=6) | st.text("\0\x01a", max_size=5).map(str.encode),
    "str": st.text(max_size=5) | st.text("\0\x01a", max_size=5),
    "int": INTS | st.integers(-3, 3),
    "float": st.floats(allow_nan=False).map(lambda number: number + 0.0),
    "bool": st.booleans(),
    "date": st.dates(),
    "time": st.times(),
    "datetime": st.datetimes(),
    "instant": st.datetimes(
        datetime(2, 1, 1),  # noqa: DTZ001 - hypothesis wants it so
        timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5))),
    ),
}
ANY = st.recursive(
    st.none() | st.one_of(PLAIN.values()), lambda inner: st.lists(inner, max_size=3).map(tuple)
)


def by_code_points(value: Any) -> Any:
    return [ord(character) for character in value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", PLAIN)
@EXAMPLES
@given(st.data())
def test_bytes_sort_as_the_values_do(name: str, data: st.DataObject) -> None:
    one, other = data.draw(PLAIN[name]), data.draw(PLAIN[name])
    assert (encode(one) < encode(other)) == (by_code_points(one) < by_code_points(other))
    assert (encode(one) == encode(other)) == (one == other)


@EXAMPLES
@given(st.data())
def test_tuples_sort_element_by_element(data: st.DataObject) -> None:
    pairs = st.tuples(PLAIN["bytes"], PLAIN["int"], PLAIN["str"].map(by_code_points))
    one, other = data.draw(pairs), data.draw(pairs)
    as_tuples = [(a, b, "".join(map(chr, c))) for a, b, c in (one, other)]
    left, right = map(encode_all, as_tuples)
    assert (left < right) == (one < other)
    assert encode_all(as_tuples[0][:2]) < left, "a shorter one is first"


@EXAMPLES
@given(st.lists(ANY, max_size=4).map(tuple))
def test_what_went_in_comes_back(value: tuple[Any, ...]) -> None:
    for found in (decode_all(encode_all(value)), decode(encode(value))):
        assert found == value
        assert repr(found).replace(" ", "") == repr(in_utc(value)).replace(" ", "")


def in_utc(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(in_utc, value))
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    return value.replace(fold=0) if isinstance(value, time | datetime) else value


def test_the_form_never_changes() -> None:
    value = (None, True, -1, 1.5, b"a\0", "é", date(1970, 1, 2), time(0, 0, 1), (0,))
    assert encode(value).hex() == (
        "0b0102010"
        "37fffffffffffffff"
        "04bff8000000000000"
        "056100ff00"
        "06c3a900"
        "078000000000000001"
        "0880000000000f4240"
        "0b03800000000000000000"
        "00"
    )


@pytest.mark.parametrize(
    "value", [[1], {1}, 1j, 2**63, -(2**63) - 1, "\ud800", time(1, tzinfo=UTC)]
)
def test_the_rest_is_refused(value: Any) -> None:
    with pytest.raises(UnsupportedType):
        encode((1, value))
