"""What there is: names, sizes, statuses. Listings are printed as they arrive, page by page."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click
import msgspec

from minigfs.cli.arguments import json_option, paths_argument
from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.paths import base_name, expand, pattern_of, walked
from minigfs.master.messages import EntryKind, FileStatus, LocatedChunk
from minigfs.terminal import echo_json, format_bytes, format_table, terminal_options

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient
    from minigfs.client.scrub_times import ScrubTimes

__all__ = ["du", "find", "format_scrub_time", "local_time", "ls", "oldest_scrub", "stat", "tree"]

_LAST_TIME_MS = 253_402_200_000_000  # in the year 9999; no calendar knows a later one
_SHOWN_AT_ONCE = 1_000  # entries whose columns are aligned with each other


@click.command()
@click.argument("paths", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Show size, replicas and time, too.")
@json_option
@cluster_options
@terminal_options
def ls(cluster: ClusterChoice, paths: tuple[str, ...], long: bool, as_json: bool) -> None:
    """List directories (default: /) and files; a directory ends in a slash."""
    client = cluster.connect()
    _show(_listed(client, expand(client, paths or ("/",))), as_json=as_json, long=long)


def _listed(client: "MinigfsClient", found: list[FileStatus]) -> Iterator[FileStatus]:
    for status in found:
        if status.kind is EntryKind.DIRECTORY:
            yield from client.list_directory(status.path)
        else:
            yield status


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--name", "pattern", help="Only names that match this pattern, as in '*.log'.")
@click.option("--type", "kind", type=click.Choice(["f", "d"]), help="Only files, or directories.")
@click.option("-l", "--long", is_flag=True, help="Show size, replicas and time, too.")
@json_option
@cluster_options
@terminal_options
def find(
    cluster: ClusterChoice,
    paths: tuple[str, ...],
    pattern: str | None,
    kind: str | None,
    long: bool,
    as_json: bool,
) -> None:
    """List everything at and below paths (default: /), at any depth."""
    client = cluster.connect()
    matcher = pattern_of(pattern) if pattern is not None else None
    wanted = {"f": EntryKind.FILE, "d": EntryKind.DIRECTORY, None: None}[kind]
    found = (
        status
        for status in walked(client, expand(client, paths or ("/",)))
        if wanted in (None, status.kind)
        and (matcher is None or matcher.fullmatch(base_name(status.path)))
    )
    _show(found, as_json=as_json, long=long)


def _show(entries: Iterable[FileStatus], *, as_json: bool, long: bool) -> None:
    if as_json:
        echo_json(list(entries))
        return
    rest = iter(entries)
    while page := list(islice(rest, _SHOWN_AT_ONCE)):
        lines = _long_lines(page) if long else [_shown(entry) for entry in page]
        click.echo("".join(f"{line}\n" for line in lines), nl=False)


def _long_lines(entries: list[FileStatus]) -> list[str]:
    rows = [
        (
            str(entry.size_bytes),
            str(entry.replication or "-"),
            local_time(entry.modified_ms),
            _shown(entry),
        )
        for entry in entries
    ]
    return format_table((), rows)


def _shown(status: FileStatus) -> str:
    is_directory = status.kind is EntryKind.DIRECTORY and status.path != "/"
    return f"{status.path}/" if is_directory else status.path


def local_time(time_ms: int) -> str:
    time_ms = min(time_ms, _LAST_TIME_MS)
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--depth", type=click.IntRange(min=1), help="How many levels to show.")
@json_option
@cluster_options
@terminal_options
def tree(cluster: ClusterChoice, paths: tuple[str, ...], depth: int | None, as_json: bool) -> None:
    """Draw what lies below directories (default: /)."""
    client = cluster.connect()
    tops = expand(client, paths or ("/",))
    if as_json:
        echo_json([_nested(client, top, depth) for top in tops])
        return
    for top in tops:
        click.echo(_shown(top))
        if top.kind is EntryKind.DIRECTORY:
            _draw(client, top.path, depth)


def _nested(client: "MinigfsClient", status: FileStatus, depth: int | None) -> dict[str, object]:
    """A status; of a directory whose inside is wanted, also its ``entries``, which are the same."""
    node: dict[str, object] = msgspec.to_builtins(status)
    if status.kind is EntryKind.DIRECTORY and depth != 0:
        below = None if depth is None else depth - 1
        entries = client.list_directory(status.path)
        node["entries"] = [_nested(client, entry, below) for entry in entries]
    return node


def _draw(client: "MinigfsClient", path: str, depth: int | None) -> None:
    """Without recursion: a path may have two thousand parts."""
    entries = client.list_directory(path)
    levels = [(entries, next(entries, None), "")]  # what is left of each, the next entry, indent
    while levels:
        entries, entry, indent = levels.pop()
        if entry is None:
            continue
        following = next(entries, None)
        branch, below = ("├── ", "│   ") if following is not None else ("└── ", "    ")
        is_directory = entry.kind is EntryKind.DIRECTORY
        size = "/" if is_directory else f"  ({format_bytes(entry.size_bytes)})"
        click.echo(f"{indent}{branch}{base_name(entry.path)}{size}")
        levels.append((entries, following, indent))
        if is_directory and (depth is None or len(levels) < depth):
            inside = client.list_directory(entry.path)
            levels.append((inside, next(inside, None), indent + below))


@click.command()
@click.argument("paths", nargs=-1)
@click.option("-h", "--human", is_flag=True, help="Show sizes in KiB, MiB, ...")
@json_option
@cluster_options
@terminal_options
def du(cluster: ClusterChoice, paths: tuple[str, ...], human: bool, as_json: bool) -> None:
    """Show the bytes at and below paths (default: /), replicas not counted."""
    client = cluster.connect()
    used = [(status.path, client.usage(status.path)) for status in expand(client, paths or ("/",))]
    if as_json:
        echo_json(
            [
                {
                    "path": path,
                    "bytes": usage.size_bytes,
                    "files": usage.file_count,
                    "directories": usage.directory_count,
                }
                for path, usage in used
            ]
        )
        return
    for path, usage in used:
        size = format_bytes(usage.size_bytes) if human else str(usage.size_bytes)
        click.echo(f"{size}\t{path}")


@click.command()
@paths_argument
@json_option
@cluster_options
@terminal_options
def stat(cluster: ClusterChoice, paths: tuple[str, ...], as_json: bool) -> None:
    """Show what is known of files and directories.

    "scrubbed": since when every replica of the file was read whole and found sound by its server.
    """
    client = cluster.connect()
    found = [(status, _scrubbed_since(client, status)) for status in expand(client, paths)]
    if as_json:
        echo_json(
            [{**msgspec.to_builtins(status), "last_scrubbed_ms": since} for status, since in found]
        )
        return
    for status, since in found:
        rows = [
            ("path", status.path),
            ("kind", str(status.kind)),
            ("size", f"{status.size_bytes} ({format_bytes(status.size_bytes)})"),
            ("chunks", str(status.chunk_count)),
            ("replication", str(status.replication)),
            ("digest", status.digest or "-"),
            ("created", local_time(status.created_ms)),
            ("modified", local_time(status.modified_ms)),
            ("scrubbed", format_scrub_time(since) if status.chunk_count else "-"),
        ]
        click.echo("\n".join(format_table((), rows)))


def _scrubbed_since(client: "MinigfsClient", status: FileStatus) -> int | None:
    if not status.chunk_count:
        return None
    located = client.locations(status.path)
    return oldest_scrub(located.chunks, client.scrub_times(located))


def oldest_scrub(chunks: Iterable[LocatedChunk], times: "ScrubTimes") -> int | None:
    """Since when all replicas of some chunks were read; 0: never; None: that is not known."""
    found = [times.get((c.handle, replica.address)) for c in chunks for replica in c.replicas]
    known = [at for at in found if at is not None]
    return min(known) if known and len(known) == len(found) else None


def format_scrub_time(time_ms: int | None) -> str:
    if time_ms is None:
        return "unknown"
    return local_time(time_ms) if time_ms else "never"
