"""Output formats: how the pairs of a job become the bytes of its parts.

A job names its format, as ``output_format="parquet"`` or, with options, as
``output_format=minimr.outputs.Text(escape=True)``; whoever runs it can set them as well:
``--set output_format=csv --set output.header=true --set compression=gzip``.

============  =====================================================================  ============
name          a record                                                               part's suffix
============  =====================================================================  ============
``text``      ``key<TAB>value<LF>``, bytes as they are; see `Text`
``lines``     ``value<LF>``, the key is left out
``raw``       the value's bytes and nothing else, the key is left out
``csv``       ``key,value<LF>``, quoted where needed                                 ``.csv``
``jsonl``     ``{"key":key,"value":value}<LF>``                                      ``.jsonl``
``parquet``   a row with the columns ``key`` and ``value``                           ``.parquet``
``arrow``     the same in an Arrow IPC file                                          ``.arrow``
============  =====================================================================  ============

``compression=gzip`` or ``zstd`` packs the part (suffix ``.gz``, ``.zst``), or the pages inside a
Parquet or Arrow file. Reading a job's output again, minimr unpacks by the suffix.

Your own format is an object with the methods of `CustomWriter`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

from minimr.errors import JobUsageError
from minimr.format_options import with_options

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ArrowIpc",
    "Compression",
    "Csv",
    "CustomWriter",
    "JsonLines",
    "Lines",
    "OpenPart",
    "OutputFormat",
    "Parquet",
    "Raw",
    "Text",
    "chosen_compression",
    "chosen_format",
    "part_suffix",
]

Compression = Literal["", "gzip", "zstd"]


@dataclass(frozen=True, slots=True)
class Text:
    """``key<TAB>value<LF>``. A tab in a key, or a line feed in either, fails the task, because the
    line would read as another record; with ``escape`` backslash, tab and line feed are written as
    ``\\\\``, ``\\t`` and ``\\n``."""

    escape: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """The value and a line feed. A line feed in a value fails the task."""


@dataclass(frozen=True, slots=True)
class Raw:
    """The values' bytes, one after the other."""


@dataclass(frozen=True, slots=True)
class Csv:
    """RFC 4180 with LF; ``header`` writes ``key,value`` at the top of each part."""

    header: bool = False


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Keys and values that are bytes must be UTF-8, and floats finite."""


@dataclass(frozen=True, slots=True)
class Parquet:
    """A part without rows has the columns of the others; if none has rows, those that an
    aggregation would have made, and behind a function binary ones: nothing tells their types."""


@dataclass(frozen=True, slots=True)
class ArrowIpc:
    pass


class OpenPart(Protocol):
    """A part that is being written."""

    def write(self, table: "pa.RecordBatch") -> None:
        """Append rows with the columns ``key`` and ``value``."""

    def close(self) -> None:
        """Write what is left. The file is the framework's to close."""


@runtime_checkable
class CustomWriter(Protocol):
    """A format of your own. ``suffix`` ends the parts' names; it may be empty."""

    suffix: str

    def open(self, file: IO[bytes]) -> OpenPart: ...


OutputFormat: TypeAlias = Text | Lines | Raw | Csv | JsonLines | Parquet | ArrowIpc | CustomWriter

_NAMED: dict[str, type[Any]] = {
    "text": Text,
    "lines": Lines,
    "raw": Raw,
    "csv": Csv,
    "jsonl": JsonLines,
    "parquet": Parquet,
    "arrow": ArrowIpc,
}
_SUFFIXES: dict[type[Any], str] = {
    Csv: ".csv",
    JsonLines: ".jsonl",
    Parquet: ".parquet",
    ArrowIpc: ".arrow",
}
_COMPRESSION_SUFFIXES = {"": "", "gzip": ".gz", "zstd": ".zst"}


def chosen_format(wanted: "str | OutputFormat", settings: Mapping[str, str]) -> OutputFormat:
    """The format of a run: the job's, or another that ``--set output_format=`` names.

    Raises `JobUsageError` for a name or option that does not exist.
    """
    wanted = settings.get("output_format", wanted)
    if isinstance(wanted, str):
        if wanted not in _NAMED:
            raise JobUsageError(f"output_format {wanted!r} is none of {', '.join(_NAMED)}")
        wanted = cast("OutputFormat", _NAMED[wanted]())
    escape = settings.get("escape")
    if escape is not None:
        escape = escape.lower()
        if escape not in ("true", "false"):
            raise JobUsageError(f"escape={escape!r}: must be true or false")
        if isinstance(wanted, Text):
            wanted = Text(escape=escape == "true")
        elif escape == "true":
            raise JobUsageError("escape=true is for output_format=text")
    return with_options(wanted, "output.", settings)


def chosen_compression(settings: Mapping[str, str]) -> Compression:
    match settings.get("compression", "none"):
        case "none":
            return ""
        case "gzip":
            return "gzip"
        case "zstd":
            return "zstd"
        case other:
            raise JobUsageError(f"compression={other!r} is none of gzip, zstd, none")


def part_suffix(chosen: OutputFormat, compression: Compression) -> str:
    """What the parts' names end in."""
    if isinstance(chosen, Parquet | ArrowIpc):
        return _SUFFIXES[type(chosen)]
    suffix = chosen.suffix if isinstance(chosen, CustomWriter) else _SUFFIXES.get(type(chosen), "")
    return suffix + _COMPRESSION_SUFFIXES[compression]
