"""``csv``: RFC 4180 with LF; fields with a quote, comma, CR or LF are quoted."""

import pyarrow as pa
import pyarrow.compute as pc

from minimr.column_text import as_text
from minimr.columns import binary_scalar
from minimr.formats.text_output import content_of
from minimr.pairs import Pairs

__all__ = ["CSV_HEADER", "encode_csv"]

CSV_HEADER = b"key,value\n"


def encode_csv(pairs: Pairs) -> memoryview:
    """One row a pair; bytes stay as they are."""
    keys, values = (_quoted(as_text(column)) for column in pairs.columns)
    rows = pc.binary_join_element_wise(keys, values, binary_scalar(b","))
    return content_of(pc.binary_join_element_wise(rows, binary_scalar(b""), binary_scalar(b"\n")))


def _quoted(column: pa.Array) -> pa.Array:
    special = pc.match_substring_regex(column, '[",\r\n]')
    if not pc.any(special).as_py():
        return column
    doubled = pc.replace_substring(column, pattern=b'"', replacement=b'""')
    quote = binary_scalar(b'"')
    quoted = pc.binary_join_element_wise(quote, doubled, quote, binary_scalar(b""))
    return pc.if_else(special, quoted, column)
