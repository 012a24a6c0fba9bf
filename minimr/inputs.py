"""Input formats: how the bytes of files become the records of a job.

A job names its format, as ``input_format="csv"`` or, with options, as
``input_format=minimr.inputs.Csv(header=True)``; whoever runs it can set them as well:
``--set input_format=csv --set input.header=true``. What a record is, for ``map`` and for
``map_batches``:

===============  ===========================  =====================================  ==============
name             record of ``map``            columns of ``map_batches``             files are cut
===============  ===========================  =====================================  ==============
``lines``        bytes, without the LF        ``line: binary``                       at lines
``blocks``       (only ``map_batches``)       ``block: large_binary``, whole lines   at lines
``keyvalue``     (key, value), two bytes      ``key: binary``, ``value: binary``     at lines
``fixed``        bytes                        ``record: fixed_size_binary[N]``       at records
``files``        (name, content), str, bytes  ``name: string``, ``content: binary``  never
``csv``          dict of str, or list of str  string columns                         see `Csv`
``jsonl``        what the line's JSON says    as inferred from the batch's lines     at lines
``parquet``      dict                         those of the file                      at row groups
``arrow``        dict                         those of the file                      at batches
``auto``         by each file's suffix (``.csv``, ``.jsonl``, ``.parquet``, ``.arrow``, ...), else
                 ``lines``
===============  ===========================  =====================================  ==============

Files ending in ``.gz``, ``.zst``, ``.bz2`` or ``.xz`` are unpacked on the way; they are never cut.
Lines end at LF only; a CR before it belongs to the line.

Your own format is an object with the methods of `CustomReader`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol, TypeAlias, cast, runtime_checkable

from minimr.errors import JobUsageError
from minimr.format_options import with_options

__all__ = [
    "ArrowIpc",
    "Auto",
    "Blocks",
    "Csv",
    "CustomReader",
    "Files",
    "FixedWidth",
    "InputFormat",
    "JsonLines",
    "KeyValue",
    "Lines",
    "Parquet",
    "chosen_format",
    "cuts_files",
    "file_format",
]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as bytes, without their LFs."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Runs of whole lines with their LFs (the file's last line may lack its LF): for batch
    functions that find lines themselves."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """Lines cut at the first ``separator``; without one, all of it is the key."""

    separator: str = "\t"

    def __post_init__(self) -> None:
        if not self.separator or "\n" in self.separator:
            raise JobUsageError(
                f"separator={self.separator!r}: must be at least one character, no line feed"
            )


@dataclass(frozen=True, slots=True)
class FixedWidth:
    """Records of ``record_bytes`` each. A file that ends inside one is an error."""

    record_bytes: int = 100

    def __post_init__(self) -> None:
        if self.record_bytes < 1:
            raise JobUsageError(f"record_bytes={self.record_bytes}: must be a number from 1")


@dataclass(frozen=True, slots=True)
class Files:
    """Whole files: their path below the input (a file given itself: its name), and their bytes.

    ``suffixes`` leaves out all others. A file must fit the memory of an executor.
    """

    suffixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Csv:
    """Rows of RFC 4180, quoted line feeds included, as text (UTF-8, errors replaced, without the
    byte order mark that some programs put first).

    With ``header`` the first row of each file names the columns; else rows are lists, columns
    ``c0``, ``c1``, ... A file is one piece, because nothing tells a quoted line feed from the end
    of a row but all that stands before it; ``multiline=False`` promises that there are none, and
    lets files be cut at lines (not with ``header``).
    """

    header: bool = False
    separator: str = ","
    multiline: bool = True

    def __post_init__(self) -> None:
        if len(self.separator) != 1 or self.separator in '"\r\n':
            raise JobUsageError(f"separator={self.separator!r}: must be one character, no quote")


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON value a line; empty lines are skipped."""


@dataclass(frozen=True, slots=True)
class Parquet:
    """Rows; only ``columns`` are read, all by default."""

    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArrowIpc:
    """Rows of Arrow IPC files (cut at record batches) and streams (never cut)."""

    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Auto:
    """Each file by its suffix."""


@runtime_checkable
class CustomReader(Protocol):
    """A format of your own.

    ``cuts_files``: whether a task may get a range that begins inside a file. Then ``read`` must
    give the records that *begin* in bytes ``[start, end)``, reading on behind ``end`` to finish the
    last one; ``file`` is seekable. Otherwise it gives all records of ``file``, which is unpacked,
    can be read forward only, and ``end`` is -1. What it yields goes to ``map`` one by one; a job
    with ``map_batches`` needs a reader that yields ``pyarrow.RecordBatch``.
    """

    cuts_files: bool

    def read(self, file: IO[bytes], start: int, end: int) -> Iterator[Any]: ...


InputFormat: TypeAlias = (
    Lines
    | Blocks
    | KeyValue
    | FixedWidth
    | Files
    | Csv
    | JsonLines
    | Parquet
    | ArrowIpc
    | Auto
    | CustomReader
)

_NAMED: dict[str, type[Any]] = {
    "lines": Lines,
    "blocks": Blocks,
    "keyvalue": KeyValue,
    "fixed": FixedWidth,
    "files": Files,
    "csv": Csv,
    "jsonl": JsonLines,
    "parquet": Parquet,
    "arrow": ArrowIpc,
    "auto": Auto,
}

_BY_SUFFIX: dict[str, type[Any]] = {
    "csv": Csv,
    "jsonl": JsonLines,
    "ndjson": JsonLines,
    "parquet": Parquet,
    "arrow": ArrowIpc,
    "arrows": ArrowIpc,
    "feather": ArrowIpc,
}
_PACKED_SUFFIXES = frozenset({"gz", "zst", "bz2", "xz"})


def chosen_format(wanted: "str | InputFormat", settings: Mapping[str, str]) -> InputFormat:
    """The format of a run: the job's, or another that ``--set input_format=`` names.

    Raises `JobUsageError` for a name or option that does not exist, and for another format than
    that of a job which can read no other.
    """
    given = settings.get("input_format")
    if given is not None and given != wanted:
        if wanted == "blocks" or not isinstance(wanted, str):
            name = wanted if isinstance(wanted, str) else type(wanted).__name__
            raise JobUsageError(f"input_format={given}: this job reads {name} and nothing else")
        wanted = given
    if isinstance(wanted, str):
        if wanted not in _NAMED:
            raise JobUsageError(f"input_format {wanted!r} is none of {', '.join(_NAMED)}")
        wanted = cast("InputFormat", _NAMED[wanted]())
    return with_options(wanted, "input.", settings)


def file_format(chosen: InputFormat, url: str) -> InputFormat:
    """What `Auto` means for this file; any other format is itself."""
    if not isinstance(chosen, Auto):
        return chosen
    *_, suffix, last = ["", "", *url.rpartition("/")[2].split(".")]
    found: InputFormat = _BY_SUFFIX.get(suffix if last in _PACKED_SUFFIXES else last, Lines)()
    return found


def cuts_files(chosen: InputFormat, url: str) -> bool:
    """Whether a range of this file may begin inside it."""
    match file_format(chosen, url):
        case Files():
            return False
        case Csv(header=header, multiline=multiline):
            return not (header or multiline)
        case Lines() | Blocks() | KeyValue() | FixedWidth() | JsonLines() | Parquet() | ArrowIpc():
            return True
        case custom:
            assert isinstance(custom, CustomReader)
            return custom.cuts_files
