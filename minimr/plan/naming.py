"""Names of files: which ones are data, and what a job's own files and directories are called.

Names that start with ``_`` or ``.`` are never data: so a job's staging directory, which lies beside
its output under such a name, stays invisible to jobs that read the parent directory meanwhile.
"""

from typing import Literal

from minimr.errors import JobUsageError
from minimr.ids import JobId

__all__ = [
    "MANIFEST_NAME",
    "attempts_url",
    "compression_of",
    "is_hidden",
    "join_url",
    "parent_url",
    "part_name",
    "split_root",
    "staging_url",
    "working_urls",
]

MANIFEST_NAME = "_manifest.json"

PartKind = Literal["m", "r"]  # of a map-only job, or of a reduce partition

_COMPRESSION_BY_SUFFIX = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}


def is_hidden(name: str) -> bool:
    """Whether directory and glob inputs skip this name (one path component)."""
    return name.startswith(("_", "."))


def compression_of(url: str) -> str:
    """``"gzip"``, ``"zstd"``, ``"bz2"``, ``"xz"`` or ``""``, by the file's name alone."""
    for suffix, compression in _COMPRESSION_BY_SUFFIX.items():
        if url.endswith(suffix):
            return compression
    return ""


def part_name(kind: PartKind, index: int) -> str:
    """``part-r-00007``: sorted by name, parts are in order of partition up to 100,000 of them."""
    return f"part-{kind}-{index:05d}"


def split_root(url: str) -> tuple[str, str]:
    """The part of a URL or path that names a file system, and the path below it.

    ``minigfs:///logs/a`` is ``("minigfs:///", "logs/a")``, ``s3://bucket/a`` is
    ``("s3://bucket/", "a")``, ``/a`` is ``("/", "a")`` and ``a`` is ``("", "a")``.
    """
    scheme, separator, rest = url.rpartition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        return f"{scheme}://{authority}{slash}", path.lstrip("/")
    return ("/", url.lstrip("/")) if url.startswith("/") else ("", url)


def join_url(directory: str, name: str) -> str:
    return f"{directory}{name}" if directory.endswith("/") else f"{directory}/{name}"


def parent_url(url: str) -> str:
    """The directory that holds ``url``; a root has none: `JobUsageError`."""
    root, path = split_root(url)
    path = path.rstrip("/")
    if not path:
        raise JobUsageError(f"{url!r} is the root of a file system: name a directory below it")
    return root + path.rpartition("/")[0].rstrip("/") or "."


def staging_url(output: str, job_id: JobId) -> str:
    """The directory that becomes the output: beside it, so that publishing is a rename. Only the
    publish task writes there."""
    return join_url(parent_url(output), f"_minimr-{job_id}")


def attempts_url(staging: str) -> str:
    """Where the attempts of a job write: a directory of its own, so that a late attempt that nobody
    waits for can never add to an output."""
    return f"{staging}-attempts"


def working_urls(staging: str) -> tuple[str, str]:
    """All that a job leaves beside its output until it ends."""
    return staging, attempts_url(staging)
