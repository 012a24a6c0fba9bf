"""What an ``--input`` means: a file, everything below a directory, or everything a glob matches.

Only decisions are made here. Whoever can list directories walks down from ``InputSelection.root``,
enters a directory when `enters` says so and keeps a file when `takes` says so, both asked with the
path below the root. So a glob on a big tree costs only the directories it can match in.

Globs know ``*``, ``?`` and ``[...]`` inside one path component and ``**`` for any number of
components. A directory that matches stands for everything below it. Components that start with
``_`` or ``.`` are skipped below the root, whatever the pattern says (DESIGN 5.1); those the user
wrote out as part of the root are not looked at.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from minimr.plan.naming import is_hidden, split_root

__all__ = ["InputSelection", "everything_below", "has_wildcard", "matching"]

_WILDCARD = re.compile(r"[*?[]")


def has_wildcard(url: str) -> bool:
    """Whether ``url`` reads as a glob. A file that really has such a name is the caller's to look
    for first."""
    return _WILDCARD.search(split_root(url)[1]) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSelection:
    """Which files below ``root`` are input: all of them, or those ``pattern`` matches."""

    root: str
    pattern: tuple[str, ...] = ()  # one entry per path component; empty: everything

    def enters(self, directory: str) -> bool:
        """Whether a file below ``directory`` (path below the root) may be input."""
        names = _visible_names(directory)
        return names is not None and (not self.pattern or _may_match(self.pattern, names))

    def takes(self, file: str) -> bool:
        """Whether ``file`` (path below the root) is input."""
        names = _visible_names(file)
        return names is not None and (not self.pattern or _matches(self.pattern, names))


def everything_below(directory: str) -> InputSelection:
    return InputSelection(root=directory)


def matching(url: str) -> InputSelection:
    """The selection of a glob: ``root`` is the part before its first component with a wildcard."""
    root, path = split_root(url)
    components = [component for component in path.split("/") if component]
    first = next(i for i, component in enumerate(components) if _WILDCARD.search(component))
    return InputSelection(
        root=root + "/".join(components[:first]) or ".", pattern=tuple(components[first:])
    )


def _visible_names(path: str) -> tuple[str, ...] | None:
    names = tuple(name for name in path.split("/") if name)
    return None if any(is_hidden(name) for name in names) else names


def _matches(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether ``pattern`` matches ``names`` or a directory above it."""
    if not pattern:
        return True
    if pattern[0] == "**":
        rest = pattern[1:] or ("*",)
        return any(_matches(rest, names[i:]) for i in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(pattern[1:], names[1:])


def _may_match(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether ``pattern`` can match something below the directory ``names``."""
    if not names or not pattern or pattern[0] == "**":
        return True
    return fnmatchcase(names[0], pattern[0]) and _may_match(pattern[1:], names[1:])
