"""Plain-Python answers of the standard jobs: slow, obvious, and nothing shared with the product."""

from collections import Counter
from collections.abc import Iterable

__all__ = ["lines_of", "read_counts", "url_counts", "url_counts_by_field"]


def lines_of(data: bytes) -> list[bytes]:
    """Lines end at LF only; a last one without its LF counts."""
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def _parts(text: bytes) -> list[bytes]:
    """Split at runs of spaces and tabs, ignoring leading and trailing ones."""
    return [part for part in text.replace(b"\t", b" ").split(b" ") if part]


def url_counts(data: bytes) -> tuple[Counter[bytes], int]:
    """(requests by URL, malformed lines): the quoted rule."""
    counts: Counter[bytes] = Counter()
    malformed = 0
    for line in lines_of(data):
        _, quote, rest = line.partition(b'"')
        parts = _parts(rest.partition(b'"')[0]) if quote else []
        if len(parts) < 2:
            malformed += 1
        else:
            counts[parts[1]] += 1
    return counts, malformed


def url_counts_by_field(data: bytes, field: int) -> tuple[Counter[bytes], int]:
    """(requests by URL, malformed lines): the ``field=N`` rule."""
    counts: Counter[bytes] = Counter()
    malformed = 0
    for line in lines_of(data):
        parts = _parts(line)
        if len(parts) < field:
            malformed += 1
        else:
            counts[parts[field - 1]] += 1
    return counts, malformed


def read_counts(parts: Iterable[bytes]) -> Counter[bytes]:
    """The counts in text parts; a key that stands in two parts is an error."""
    counts: Counter[bytes] = Counter()
    for part in parts:
        for line in lines_of(part):
            key, _, value = line.rpartition(b"\t")
            assert key not in counts, f"{key!r} twice"
            counts[key] = int(value)
    return counts
