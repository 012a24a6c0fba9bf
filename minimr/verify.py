"""Is an output still what its job published? Its files against its manifest (DESIGN 5.4).

Sizes and xxh3 sums of every part and side output, the number of records where lines are records, no
missing file and no strange one, and the receipt's sums: what maps wrote is what reduces read.
"""

from collections.abc import Iterator
from typing import IO, Any

import msgspec
import xxhash

from minimr.errors import JobUsageError
from minimr.formats.storage import Storage, absolute_url
from minimr.plan.naming import MANIFEST_NAME, join_url

__all__ = ["FileFinding", "VerifyReport", "verify_output"]

_READ_BYTES = 4 << 20
_LINE_FORMATS = frozenset({"text", "lines", "jsonlines"})


class _File(msgspec.Struct, frozen=True):
    name: str
    size_bytes: int
    xxh3: str
    records: int


class _Amount(msgspec.Struct, frozen=True):
    records: int = 0
    bytes: int = 0
    sum: str = ""


class _Receipt(msgspec.Struct, frozen=True):
    map_output: _Amount
    reduce_input: _Amount


class _Manifest(msgspec.Struct, frozen=True):
    job_id: str
    parts: list[_File]
    counters: dict[str, int]
    sides: list[_File] = []
    output_format: str = ""
    settings: dict[str, Any] = {}
    receipt: _Receipt | None = None


class FileFinding(msgspec.Struct, frozen=True, kw_only=True):
    """``problem`` "": the file is as it was published."""

    name: str
    size_bytes: int
    problem: str


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    output: str
    job_id: str
    files: list[FileFinding]
    problems: list[str]

    @property
    def is_whole(self) -> bool:
        return not self.problems


def verify_output(output: str, storage: Storage | None = None) -> VerifyReport:
    """Read all of an output and compare it with its manifest.

    Raises `JobUsageError` if there is no manifest to compare with.
    """
    url, storage = absolute_url(output), storage or Storage()
    manifest = _read_manifest(url, storage)
    if isinstance(manifest, str):
        return VerifyReport(output=url, job_id="", files=[], problems=[manifest])
    by_line = manifest.output_format in _LINE_FORMATS and not manifest.settings.get("compression")
    files = [_check(url, file, storage, by_line=by_line) for file in manifest.parts]
    files += [_check(url, file, storage, by_line=False) for file in manifest.sides]
    problems = [f"{file.name}: {file.problem}" for file in files if file.problem]
    problems += _strays(url, manifest, storage)
    problems += _accounts(manifest)
    return VerifyReport(output=url, job_id=manifest.job_id, files=files, problems=problems)


def _read_manifest(url: str, storage: Storage) -> "_Manifest | str":
    """The manifest, or what is wrong with it."""
    place = join_url(url, MANIFEST_NAME)
    if not storage.exists(place):
        raise JobUsageError(
            f"{url} has no {MANIFEST_NAME}: name the output directory of a job that is done"
        )
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=_Manifest)
    except msgspec.DecodeError as error:
        return f"{MANIFEST_NAME}: cannot be read: {error}"


def _check(url: str, file: _File, storage: Storage, *, by_line: bool) -> FileFinding:
    place = join_url(url, file.name)
    try:
        with storage.open_input(place) as opened:
            size_bytes, digest, line_count = _summed(opened)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "is missing" if missing else f"cannot be read: {error}"
        return FileFinding(name=file.name, size_bytes=0, problem=problem)
    problem = ""
    if size_bytes != file.size_bytes:
        problem = f"holds {size_bytes:,} bytes, not {file.size_bytes:,}"
    elif digest != file.xxh3:
        problem = f"its xxh3 is {digest}, not {file.xxh3}: bytes have changed"
    elif by_line and line_count != file.records:
        problem = f"holds {line_count:,} records, not {file.records:,}"
    return FileFinding(name=file.name, size_bytes=size_bytes, problem=problem)


def _summed(opened: IO[bytes]) -> tuple[int, str, int]:
    digest, size_bytes, line_count = xxhash.xxh3_64(), 0, 0
    while piece := opened.read(_READ_BYTES):
        digest.update(piece)
        size_bytes += len(piece)
        line_count += piece.count(b"\n")
    return size_bytes, digest.hexdigest(), line_count


def _strays(url: str, manifest: _Manifest, storage: Storage) -> Iterator[str]:
    known = {MANIFEST_NAME, *(file.name for file in (*manifest.parts, *manifest.sides))}
    for entry in storage.list_directory(url):
        if entry.name not in known:
            yield f"{entry.name}: is no file of this output"


def _accounts(manifest: _Manifest) -> Iterator[str]:
    """Whether the manifest's own numbers add up."""
    written = manifest.counters.get("output.records")
    listed = sum(file.records for file in manifest.parts)
    if written is not None and written != listed:
        yield f"{MANIFEST_NAME}: its parts list {listed:,} records, the job wrote {written:,}"
    receipt = manifest.receipt
    if receipt is not None and receipt.map_output != receipt.reduce_input:
        yield (
            f"{MANIFEST_NAME}: maps handed on {receipt.map_output}, reduces read "
            f"{receipt.reduce_input}"
        )
