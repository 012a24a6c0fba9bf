"""``jsonl``: one object with ``key`` and ``value`` a line."""

import math
from typing import Any

import msgspec

from minimr.column_types import to_objects
from minimr.errors import AmbiguousOutput
from minimr.formats.text_output import shown
from minimr.pairs import Pairs

__all__ = ["encode_json_lines"]

_encoder = msgspec.json.Encoder()


def encode_json_lines(pairs: Pairs) -> bytes:
    """One line a pair. Bytes become text: `AmbiguousOutput` names what is not UTF-8, and floats
    that JSON has no numbers for."""
    keys, values = map(to_objects, pairs.columns)
    return _encoder.encode_lines(
        [
            {"key": _as_json(key), "value": _as_json(value)}
            for key, value in zip(keys, values, strict=True)
        ]
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise AmbiguousOutput(  # the encoder would write null
            f"{value} is no number of JSON's: use output_format=parquet, arrow, csv or text"
        )
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise AmbiguousOutput(
            f"{shown(value)} is not UTF-8, so JSON cannot hold it: use "
            "output_format=parquet, arrow or text"
        ) from error
