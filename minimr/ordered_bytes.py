r"""Keys and values as bytes that sort as they do, and say what they are.

An element is a byte for its type, then::

    None                       nothing
    bool                       0 or 1
    int                        8 bytes, most significant first, sign bit flipped
    float                      8 bytes of IEEE 754, all inverted if negative, else sign bit flipped
    bytes, str                 the bytes (UTF-8), a zero byte written as ``00 ff``; then ``00``
    date, time, datetime       as an int: days, microseconds of the day, microseconds since 1970
    tuple                      its elements; then ``00``

No type byte is zero or 255, so elements can follow each other: a sequence of them sorts as the
tuple of them does, a shorter one first. Elements of different types sort by their type, in the
order above. A ``datetime`` with a time zone is an instant, a type of its own; it comes back in UTC.
The encoding is part of the data format: it is the same on every machine and never changes.
"""

import struct
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from numbers import Integral, Real
from typing import Any

from minimr.errors import UnsupportedType

__all__ = ["ALLOWED_TYPES", "decode", "decode_all", "encode", "encode_all", "refuse_nanoseconds"]

ALLOWED_TYPES = (
    "keys and values are bytes, str, int (64 bits), float, bool, date, time, datetime, None, or "
    "tuples of them"
)

_END = 0x00
_NONE, _BOOL, _INT, _FLOAT, _BYTES, _STR, _DATE, _TIME, _DATETIME, _INSTANT, _TUPLE = range(1, 12)
_WORD = struct.Struct(">Q")
_DOUBLE = struct.Struct(">d")
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose
_MICROSECOND = timedelta(microseconds=1)


def encode(value: Any) -> bytes:
    """One element. `UnsupportedType` for what is none of the types, and for ints over 64 bits."""
    kind = type(value)
    if kind is bytes:
        return b"%c%b\0" % (_BYTES, value.replace(b"\0", b"\0\xff"))
    if kind is str:
        return b"%c%b\0" % (_STR, _utf8(value).replace(b"\0", b"\0\xff"))
    if kind is int:
        return _word(_INT, value)
    return _encode_other(value)


def encode_all(values: Iterable[Any]) -> bytes:
    """The elements of a tuple, one after the other."""
    return b"".join(map(encode, values))


def decode(content: bytes) -> Any:
    """The one element that ``content`` is."""
    value, end = _decode_at(content, 0)
    assert end == len(content), "more than one element"
    return value


def decode_all(content: bytes) -> tuple[Any, ...]:
    """The tuple whose elements ``content`` is."""
    return _decode_until(content, 0, len(content))[0]


def refuse_nanoseconds(moment: datetime) -> None:
    """`UnsupportedType` for a pandas ``Timestamp``, as files with nanoseconds give it, that is
    between two microseconds."""
    if getattr(moment, "nanosecond", 0):
        raise UnsupportedType(
            f"the datetime {moment} has nanoseconds, and only microseconds fit: round it, or use "
            "an int"
        )


def _encode_other(value: Any) -> bytes:
    if value is None:
        return b"%c" % _NONE
    if isinstance(value, bool):
        return b"%c%c" % (_BOOL, value)
    if isinstance(value, tuple):
        return b"%c%b\0" % (_TUPLE, encode_all(value))
    if isinstance(value, bytes):
        return encode(bytes(value))
    if isinstance(value, str):
        return encode(str(value))
    if isinstance(value, datetime):
        refuse_nanoseconds(value)
        if value.tzinfo is None:
            return _word(_DATETIME, (value - _EPOCH) // _MICROSECOND)
        return _word(_INSTANT, (value - _EPOCH.replace(tzinfo=UTC)) // _MICROSECOND)
    if isinstance(value, date):
        return _word(_DATE, value.toordinal() - _EPOCH.toordinal())
    if isinstance(value, time):
        return _word(_TIME, _microseconds(value))
    if isinstance(value, Integral):
        return _word(_INT, int(value))
    if isinstance(value, Real):
        (bits,) = _WORD.unpack(_DOUBLE.pack(float(value)))
        return b"%c%b" % (_FLOAT, _WORD.pack(bits ^ (_ALL if bits & _SIGN else _SIGN)))
    raise UnsupportedType(
        f"a value of type {type(value).__name__}: {ALLOWED_TYPES}; for others give the job a codec"
    )


def _word(kind: int, number: int) -> bytes:
    try:
        return b"%c%b" % (kind, _WORD.pack(number + _SIGN))
    except struct.error:
        raise UnsupportedType(
            f"the int {number} does not fit 64 bits: use a float, or text"
        ) from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedType(f"a str is no valid Unicode text: {error}; use bytes") from error


def _microseconds(of_day: time) -> int:
    if of_day.tzinfo is not None:
        raise UnsupportedType("a time with a time zone has no place in an order: use a datetime")
    seconds = (of_day.hour * 60 + of_day.minute) * 60 + of_day.second
    return seconds * 1_000_000 + of_day.microsecond


def _decode_at(content: bytes, at: int) -> tuple[Any, int]:
    kind = content[at]
    at += 1
    if kind == _NONE:
        return None, at
    if kind == _BOOL:
        return bool(content[at]), at + 1
    if kind in (_BYTES, _STR):
        end = content.index(b"\0", at)
        while content[end : end + 2] == b"\0\xff":
            end = content.index(b"\0", end + 2)
        plain = content[at:end].replace(b"\0\xff", b"\0")
        return (plain if kind == _BYTES else plain.decode()), end + 1
    if kind == _TUPLE:
        elements, end = _decode_until(content, at, -1)
        return elements, end + 1
    (word,) = _WORD.unpack_from(content, at)
    return _from_word(kind, word), at + 8


def _decode_until(content: bytes, at: int, end: int) -> tuple[tuple[Any, ...], int]:
    """Elements up to position ``end``, or to the end mark if that is -1."""
    elements = []
    while at != end and (end >= 0 or content[at] != _END):
        element, at = _decode_at(content, at)
        elements.append(element)
    return tuple(elements), at


def _from_word(kind: int, word: int) -> Any:
    if kind == _FLOAT:
        bits = word ^ (_SIGN if word & _SIGN else _ALL)
        return _DOUBLE.unpack(_WORD.pack(bits))[0]
    number = word - _SIGN
    if kind == _INT:
        return number
    if kind == _DATE:
        return date.fromordinal(number + _EPOCH.toordinal())
    if kind == _TIME:
        return (_EPOCH + number * _MICROSECOND).time()
    naive = _EPOCH + number * _MICROSECOND
    return naive.replace(tzinfo=UTC) if kind == _INSTANT else naive
