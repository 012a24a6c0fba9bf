"""Records in order of their keys, over all parts together.

Duplicates are kept; records with equal keys stay in the order of the input.

Settings:

``records=binary`` (default)
    Records of 100 bytes; the key is the first 10. As the sort benchmark has them.
``records=lines``
    Lines; the key is the line, compared as bytes.
``records=keyvalue``
    Lines; the key is what stands before the first tab.
``record_bytes=N``
    Another size of binary records.
``key_bytes=A:B``
    The key is bytes A to B - 1, from 0, of the record (``keyvalue``: of its key).
``order=desc``
    From the greatest key to the least.
``numeric=true``
    Keys are decimal numbers, compared as such; a key that is none is an error.
``unique=true``
    Of records that are equal, all their bytes, one is kept; equal keys are in order of the records.

How it works: a range partitioner samples the keys, so that part 0 has the least; map gives (key,
record), the framework sorts, and ``reduce=minimr.agg.keep`` passes every record on. Keys are bytes
whose order is the one that is wanted: descending keys are complemented, numbers are encoded. With
``unique`` the record follows its key, so equal records meet and ``minimr.agg.first`` keeps one.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import minimr
from minimr.jobs.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["job"]

_KNOWN = ("records", "record_bytes", "key_bytes", "order", "numeric", "unique")
_KEY_BYTES = 10

_COMPLEMENT = bytes(255 - byte for byte in range(256))
_NUMBER = re.compile(rb"\s*([+-]?)0*([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?\s*")
_EXPONENT_MIDDLE = 1 << 63


def job(settings: Mapping[str, str]) -> minimr.Job:
    """Build the job; ``JobUsageError`` for an unknown setting or value."""
    options = Options("sort", settings, _KNOWN)
    records = options.choice("records", ("binary", "lines", "keyvalue"))
    is_unique = options.flag("unique")
    record_bytes = options.number("record_bytes", 100)
    if records != "binary" and "record_bytes" in settings:
        raise options.wrong("record_bytes", f"is for records=binary, not {records}")
    return minimr.Job(
        "sort",
        map_batches=WithKeys(
            records=records,
            key_range=_key_range(options, record_bytes if records == "binary" else None),
            is_numeric=options.flag("numeric"),
            is_descending=options.choice("order", ("asc", "desc")) == "desc",
            is_unique=is_unique,
        ),
        combine=minimr.agg.first if is_unique else None,
        reduce=minimr.agg.first if is_unique else minimr.agg.keep,
        partition=minimr.RangePartition(split_keys=not is_unique),
        input_format=(
            minimr.inputs.FixedWidth(record_bytes) if records == "binary" else minimr.inputs.Lines()
        ),
        output_format="raw" if records == "binary" else "lines",
    )


def _key_range(options: Options, record_bytes: int | None) -> tuple[int, int] | None:
    """Where the key stands; None: it is all of the line or its key."""
    text = options.settings.get("key_bytes")
    if text is None:
        return None if record_bytes is None else (0, min(_KEY_BYTES, record_bytes))
    found = re.fullmatch(r"([0-9]+):([0-9]+)", text, re.ASCII)
    if found is None or not int(found[1]) < int(found[2]):
        raise options.wrong("key_bytes", "must be A:B with A less than B, such as 0:10")
    if record_bytes is not None and int(found[2]) > record_bytes:
        raise options.wrong("key_bytes", f"ends behind a record of {record_bytes} bytes")
    return int(found[1]), int(found[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class WithKeys:
    """Map function: records to (key, record)."""

    records: str
    key_range: tuple[int, int] | None
    is_numeric: bool
    is_descending: bool
    is_unique: bool

    def __call__(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        import pyarrow as pa

        column = batch.column(0)
        keys = self.keys_of(column)
        if self.is_numeric:
            keys = _each(number_key, keys)
        is_fixed = self.records == "binary" and not self.is_numeric  # all keys have one length
        if self.is_descending:
            keys = _complemented(keys) if is_fixed else _each(descending_key, keys)
        elif self.is_unique and not is_fixed:
            keys = _each(prefix_free, keys)
        if self.is_unique:
            keys = _joined(keys, column)
        return pa.record_batch({"key": keys, "value": column})

    def keys_of(self, column: "pa.Array") -> "pa.Array":
        """The key of each record, as it stands there."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.records == "binary":
            assert self.key_range is not None
            return _columns_of(column, *self.key_range)
        keys = column.cast(pa.large_binary())
        if self.records == "keyvalue":
            keys = pc.replace_substring_regex(keys, pattern="(?s)\t.*", replacement="")
        return keys if self.key_range is None else pc.binary_slice(keys, *self.key_range)


def prefix_free(key: bytes) -> bytes:
    """The same order, and no key begins another: zeros are written 0 255, the end is 0 0."""
    return key.replace(b"\0", b"\0\xff") + b"\0\0"


def descending_key(key: bytes) -> bytes:
    """Orders keys of any length the other way round."""
    return prefix_free(key).translate(_COMPLEMENT)


def number_key(key: bytes) -> bytes:
    """A decimal number as bytes of the same order: sign, power of ten, digits. It is exact.

    ``ValueError`` for what is no number.
    """
    found = _NUMBER.fullmatch(key)
    digits = b"" if found is None else found[2] + (found[3] or b"")
    if found is None or not (digits or b"0" in key.lower().partition(b"e")[0]):
        raise ValueError(f"the key {key[:100]!r} is no number")
    significant = digits.lstrip(b"0")
    if not significant:
        return b"\x01"
    zeros = len(digits) - len(significant)
    exponent = len(found[2]) - zeros + int(found[4] or 0)
    size = b"%c%s" % (2, (exponent + _EXPONENT_MIDDLE).to_bytes(8, "big"))
    number = size + significant.rstrip(b"0")
    return b"\0" + (number + b"\0").translate(_COMPLEMENT) if found[1] == b"-" else number


def _each(function: Callable[[bytes], bytes], keys: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    return pa.array(map(function, keys.to_pylist()), pa.large_binary())


def _complemented(keys: "pa.Array") -> "pa.Array":
    """Orders keys of one length the other way round."""
    import numpy as np
    import pyarrow as pa

    content = ~np.frombuffer(keys.buffers()[1], np.uint8)
    return pa.Array.from_buffers(keys.type, len(keys), [None, pa.py_buffer(content)])


def _joined(keys: "pa.Array", records: "pa.Array") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    wide = [column.cast(pa.binary()).cast(pa.large_binary()) for column in (keys, records)]
    return pc.binary_join_element_wise(*wide, pa.scalar(b"", pa.large_binary()))


def _columns_of(records: "pa.Array", start: int, end: int) -> "pa.Array":
    """Bytes ``start`` to ``end - 1`` of records of one length."""
    import numpy as np
    import pyarrow as pa

    width, count = records.type.byte_width, len(records)
    content = np.frombuffer(records.buffers()[1], np.uint8, width * count, width * records.offset)
    keys = np.ascontiguousarray(content.reshape(count, width)[:, start:end])
    return pa.Array.from_buffers(pa.binary(end - start), count, [None, pa.py_buffer(keys)])
