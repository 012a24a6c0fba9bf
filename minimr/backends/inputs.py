"""Inputs as files: what ``--input`` names, looked up where it is stored."""

from collections.abc import Iterator, Sequence

from minimr.errors import InputMissing, JobUsageError
from minimr.formats.storage import Entry, Storage, is_text
from minimr.inputs import InputFormat, cuts_files
from minimr.plan.inputs import InputSelection, everything_below, has_wildcard, matching
from minimr.plan.naming import compression_of
from minimr.plan.splits import InputFile, StoredRange

__all__ = ["find_inputs"]


def find_inputs(
    storage: Storage, urls: Sequence[str], *, input_format: InputFormat
) -> tuple[InputFile, ...]:
    """The files behind absolute URLs of files, directories and globs; sorted below each of them.

    Raises `InputMissing` if one names nothing. An empty directory is an input without records.
    """
    return tuple(
        _input_file(storage, entry, path, input_format)
        for url in urls
        for entry, path in _files_of(storage, url)
    )


def _files_of(storage: Storage, url: str) -> Iterator[tuple[Entry, str]]:
    """Files, and their paths below the directory (or the fixed part of the glob) that is ``url``;
    the path of a file that is named itself is its name."""
    entry = storage.entry(url)  # first, because a file may well be called "a[1].log"
    if entry is not None and entry.is_special:
        raise JobUsageError(
            f"input {url} is a pipe or a device, which can be read only once: "
            "write it to a file first"
        )
    if entry is not None and not entry.is_directory:
        yield entry, entry.name
    elif entry is not None:
        yield from _walk(storage, everything_below(url), "")
    elif has_wildcard(url):
        files = _matching_files(storage, matching(url))
        if not files:
            raise InputMissing(f"input {url} matches no file")
        yield from files
    else:
        raise InputMissing(f"input {url} does not exist")


def _matching_files(storage: Storage, selection: InputSelection) -> list[tuple[Entry, str]]:
    if storage.entry(selection.root) is None:
        return []
    return list(_walk(storage, selection, ""))


def _walk(storage: Storage, selection: InputSelection, below: str) -> Iterator[tuple[Entry, str]]:
    """Selected files below the directory ``below`` (a path below the selection's root)."""
    directory = f"{selection.root.rstrip('/')}/{below}" if below else selection.root
    for entry in storage.list_directory(directory):
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_directory and selection.enters(path):
            yield from _walk(storage, selection, path)
        elif not (entry.is_directory or entry.is_special) and selection.takes(path):
            yield entry, path


def _input_file(storage: Storage, entry: Entry, path: str, input_format: InputFormat) -> InputFile:
    if not is_text(entry.url):
        raise JobUsageError(f"input {entry.url!r} has a name that is not UTF-8: rename it")
    stored = storage.locations(entry.url, 0, entry.size_bytes)
    return InputFile(
        url=entry.url,
        size_bytes=entry.size_bytes,
        compression=compression_of(entry.url),
        is_cut=cuts_files(input_format, entry.url),
        name_start=len(entry.url) - len(path),
        stored=tuple(StoredRange(start=s.start, length=s.length, hosts=s.hosts) for s in stored),
    )
