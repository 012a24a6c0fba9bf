"""Paths as a user types them: URLs, patterns, targets that mean "into this directory"."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from minigfs.errors import FileExists, FileMissing, InvalidPath, NotDirectory
from minigfs.master.messages import EntryKind, FileStatus

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient

__all__ = ["base_name", "check_distinct", "expand", "parse_path", "pattern_of", "place", "walked"]

_URL = "minigfs://"
_MAGIC = re.compile(r"[*?\[]")


def parse_path(text: str) -> str:
    """The path of ``/a/b``, ``/a//b/`` or ``minigfs:///a/b``; `InvalidPath` for anything else."""
    path = text
    if text.startswith(_URL):
        authority, _slash, rest = text.removeprefix(_URL).partition("/")
        if authority:
            raise InvalidPath(
                f"{text}: {authority!r} stands where a host would; a path has three slashes "
                f"({_URL}/{authority}/{rest}), another cluster is named with --masters"
            )
        path = f"/{rest}"
    if not path.startswith("/"):
        raise InvalidPath(f"{text}: a path of the cluster starts with /; did you mean /{text}?")
    return "/" + "/".join(part for part in path.split("/") if part)


def base_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def expand(client: "MinigfsClient", texts: Iterable[str]) -> list[FileStatus]:
    """What paths and patterns name, in the order given; `FileMissing` for one that names nothing.

    A path that is there as it is written is never taken for a pattern.
    """
    found: list[FileStatus] = []
    for text in texts:
        path = parse_path(text)
        try:
            found.append(client.stat(path))
        except (FileMissing, NotDirectory):
            if not _MAGIC.search(path):
                raise
            matches = _matches(client, path)
            if not matches:
                raise FileMissing(f"{path}: nothing matches the pattern") from None
            found.extend(matches)
    return found


def _matches(client: "MinigfsClient", pattern: str) -> list[FileStatus]:
    first = _MAGIC.search(pattern)
    assert first is not None
    folder, rest = pattern[: first.start()].rpartition("/")[0] or "/", pattern[first.start() :]
    only_here = "/" not in rest and "**" not in rest
    matcher = pattern_of(pattern)
    try:
        entries = client.list_directory(folder) if only_here else client.find(folder)
        return [status for status in entries if matcher.fullmatch(status.path)]
    except (FileMissing, NotDirectory):
        return []


def walked(client: "MinigfsClient", tops: Iterable[FileStatus]) -> Iterator[FileStatus]:
    """Things, each with all that is below it."""
    for top in tops:
        yield top
        if top.kind is EntryKind.DIRECTORY:
            yield from client.find(top.path)


def pattern_of(pattern: str) -> re.Pattern[str]:
    """``*`` and ``?`` stay within a name, ``**`` crosses directories, ``[!..]`` excludes."""
    translated = ""
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        assert token is not None
        text = token.group()
        match text:
            case "**/":
                translated += "(?:.*/)?"
            case "**":
                translated += ".*"
            case "*":
                translated += "[^/]*"
            case "?":
                translated += "[^/]"
            case _ if len(text) > 1:
                inside = re.sub(r"([\\&|~])", r"\\\1", text[1:-1])
                translated += f"[{'^' + inside[1:] if inside[0] == '!' else inside}]"
            case _:
                translated += re.escape(text)
        position = token.end()
    try:
        return re.compile(translated, re.DOTALL)
    except re.error as error:
        raise InvalidPath(f"{pattern}: not a pattern: {error.msg}") from None


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[(?:[!^]|(?![!^]))[^\[\]/]+\]|.", re.DOTALL)


def check_distinct(targets: list[str]) -> list[str]:
    """Refuse what would put one thing into the place of another of the same command."""
    twice = next((target for target, count in Counter(targets).items() if count > 1), None)
    if twice is not None:
        raise FileExists(f"{twice}: two of the things would get this path; name them one by one")
    return targets


def place(client: "MinigfsClient", target: str, names: list[str], *, into: bool) -> list[str]:
    """The target path of each thing that is copied or moved to ``target``, as cp and mv choose.

    They go into ``target`` under their names if it ends in a slash or is a directory, or if
    ``into``; several things need such a target, and names of their own.
    """
    path = parse_path(target)
    is_directory = into or target.endswith("/")
    if not is_directory:
        try:
            is_directory = client.stat(path).kind is EntryKind.DIRECTORY
        except (FileMissing, NotDirectory):
            is_directory = False
    if is_directory:
        return check_distinct([f"{path.rstrip('/')}/{name}" for name in names])
    if len(names) > 1:
        raise NotDirectory(f"{path}: not a directory, and {len(names)} things cannot share a path")
    return [path]
