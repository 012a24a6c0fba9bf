"""Paths as a client sees them: by their text alone."""

from collections.abc import Iterable, Iterator

__all__ = ["outermost"]


def outermost(paths: Iterable[str]) -> list[str]:
    """Each once, without those that lie below another: they go where that one goes."""
    distinct = dict.fromkeys(paths)
    return [path for path in distinct if not any(above in distinct for above in _above(path))]


def _above(path: str) -> Iterator[str]:
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)
    if path != "/":
        yield "/"
