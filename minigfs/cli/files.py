"""The verbs on files, for `minigfs` and `minimr fs` alike.

Paths of the cluster are absolute (``/logs``) or URLs (``minigfs:///logs``) and may hold the
patterns ``* ? [..]`` and ``**``; quote them, so that the shell leaves them alone.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.fsck import checksum, fsck, locations, scrub
from minigfs.cli.paths import base_name, expand, parse_path, place
from minigfs.cli.transfer import (
    blocks_of,
    first_lines,
    last_lines,
    local_tree,
    send,
    write_result,
)
from minigfs.errors import FileMissing, InvalidPath, IsDirectory, NotDirectory
from minigfs.files import write_whole
from minigfs.master.messages import EntryKind, FileStatus
from minigfs.terminal import (
    Terminal,
    bytes_option,
    echo_json,
    format_bytes,
    format_table,
    terminal_options,
)

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient

__all__ = ["fs_commands"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_paths_argument = click.argument("paths", nargs=-1, required=True)


@click.command()
@click.argument("paths", nargs=-1)
@click.option("-l", "--long", is_flag=True, help="Show size, replicas and time, too.")
@_json_option
@cluster_options
@terminal_options
def ls(cluster: ClusterChoice, paths: tuple[str, ...], long: bool, as_json: bool) -> None:
    """List directories (default: /) and files; a directory ends in a slash."""
    client = cluster.connect()
    entries: list[FileStatus] = []
    for status in expand(client, paths or ("/",)):
        is_directory = status.kind is EntryKind.DIRECTORY
        entries.extend(client.list_directory(status.path) if is_directory else (status,))
    if as_json:
        echo_json(entries)
    elif long:
        rows = [
            (
                str(entry.size_bytes),
                str(entry.replication or "-"),
                _local_time(entry.modified_ms),
                _shown(entry),
            )
            for entry in entries
        ]
        click.echo("".join(f"{line}\n" for line in format_table((), rows)), nl=False)
    else:
        click.echo("".join(f"{_shown(entry)}\n" for entry in entries), nl=False)


def _shown(status: FileStatus) -> str:
    is_directory = status.kind is EntryKind.DIRECTORY and status.path != "/"
    return f"{status.path}/" if is_directory else status.path


def _local_time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@click.command()
@_paths_argument
@cluster_options
@terminal_options
def cat(cluster: ClusterChoice, paths: tuple[str, ...]) -> None:
    """Write files to stdout, one after the other."""
    client = cluster.connect()
    for status in _files(client, paths):
        with client.open_reader(status.path) as reader:
            write_result(blocks_of(reader))


def _files(client: "MinigfsClient", paths: tuple[str, ...]) -> list[FileStatus]:
    found = expand(client, paths)
    for status in found:
        if status.kind is EntryKind.DIRECTORY:
            raise IsDirectory(
                f"{status.path}: a directory; name its files, as in '{status.path}/*'"
            )
    return found


@click.command()
@_paths_argument
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True)
@bytes_option("-c", "byte_count", help="Show this many bytes instead of lines.")
@cluster_options
@terminal_options
def head(
    cluster: ClusterChoice, paths: tuple[str, ...], lines: int, byte_count: int | None
) -> None:
    """Write the first lines of files to stdout."""
    client = cluster.connect()
    for status in _files(client, paths):
        with client.open_reader(status.path) as reader:
            write_result(
                first_lines(reader, lines)
                if byte_count is None
                else blocks_of(reader, end=byte_count)
            )


@click.command()
@_paths_argument
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True)
@bytes_option("-c", "byte_count", help="Show this many bytes instead of lines.")
@cluster_options
@terminal_options
def tail(
    cluster: ClusterChoice, paths: tuple[str, ...], lines: int, byte_count: int | None
) -> None:
    """Write the last lines of files to stdout."""
    client = cluster.connect()
    for status in _files(client, paths):
        with client.open_reader(status.path) as reader:
            write_result(
                last_lines(reader, lines)
                if byte_count is None
                else blocks_of(reader, max(0, reader.size_bytes - byte_count))
            )


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="LOCAL...")
@click.argument("target", metavar="PATH")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if a file is there already.")
@cluster_options
@terminal_options
@click.pass_obj
def put(
    terminal: Terminal,
    cluster: ClusterChoice,
    sources: tuple[str, ...],
    target: str,
    no_clobber: bool,
) -> None:
    """Copy local files and directories (``-``: stdin) into the cluster.

    If PATH ends in a slash or is a directory, they go into it. A file appears when all of it is
    stored, and takes the place of one that is there.
    """
    if "-" in sources and (len(sources) > 1 or target.endswith("/")):
        raise InvalidPath("stdin has no name: give '-' alone and the whole path of the new file")
    locals_ = [Path(source) for source in sources]
    missing = next((path for path in locals_ if str(path) != "-" and not path.exists()), None)
    if missing is not None:
        raise FileMissing(f"{missing}: no such local file")
    client = cluster.connect()
    if sources == ("-",):
        send(client, sys.stdin.buffer, parse_path(target), exclusive=no_clobber)
        return
    names = [path.resolve().name for path in locals_]
    for local, path in zip(locals_, place(client, target, names, into=len(names) > 1), strict=True):
        for file, below in local_tree(local) if local.is_dir() else ((local, ""),):
            file_path = f"{path}/{below}" if below not in ("", ".") else path
            if file.is_dir():
                client.make_directory(file_path, parents=True, exist_ok=True)
                continue
            with file.open("rb", buffering=0) as stream:
                send(client, stream, file_path, exclusive=no_clobber)
            if terminal.verbose:
                terminal.say(f"{file} -> {file_path} ({format_bytes(file.stat().st_size)})")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="PATH...")
@click.argument("target", metavar="LOCAL")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if a local file is there already.")
@cluster_options
@terminal_options
def get(cluster: ClusterChoice, sources: tuple[str, ...], target: str, no_clobber: bool) -> None:
    """Copy files and directories of the cluster to local ones (``-``: stdout).

    If LOCAL ends in a slash or is a directory, they go into it. Bytes are verified on the way, and
    a local file appears when it is whole.
    """
    client = cluster.connect()
    if target == "-":
        for status in _files(client, sources):
            with client.open_reader(status.path) as reader:
                write_result(blocks_of(reader))
        return
    found = expand(client, sources)
    root = Path(target)
    into = target.endswith("/") or root.is_dir() or len(found) > 1
    if into and root.exists() and not root.is_dir():
        raise NotDirectory(
            f"{target}: not a directory, and {len(found)} things cannot share a path"
        )
    for source in found:
        start = root / base_name(source.path) if into else root
        for status in (source, *client.find(source.path)):
            below = status.path.removeprefix(source.path).lstrip("/")
            _get_one(client, status, start / below if below else start, no_clobber)


def _get_one(client: "MinigfsClient", status: FileStatus, local: Path, no_clobber: bool) -> None:
    if status.kind is EntryKind.DIRECTORY:
        local.mkdir(parents=True, exist_ok=True)
        return
    if no_clobber and local.exists():
        raise FileExistsError(17, "File exists", str(local))
    with client.open_reader(status.path) as reader:
        write_whole(local, blocks_of(reader))


@click.command()
@_paths_argument
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with all in them.")
@click.option("-f", "--force", is_flag=True, help="It is no error if a path is not there.")
@click.option("--now", is_flag=True, help="For good, at once: nothing goes to the trash.")
@cluster_options
@terminal_options
def rm(
    cluster: ClusterChoice, paths: tuple[str, ...], recursive: bool, force: bool, now: bool
) -> None:
    """Remove files and, with -r, directories.

    They rest in the trash, as long as the policy of their directory says, for `undelete`.
    """
    client = cluster.connect()
    for text in paths:
        try:
            found = expand(client, (text,))
        except (FileMissing, NotDirectory):
            if not force:
                raise
            continue
        for status in found:
            if status.path == "/":
                raise InvalidPath("/: refusing to remove everything; name what is in it")
            if status.kind is EntryKind.DIRECTORY and not recursive:
                raise IsDirectory(f"{status.path}: a directory; remove it with -r")
            client.remove(status.path, recursive=recursive, now=now)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="PATH...")
@click.argument("target", metavar="TARGET")
@cluster_options
@terminal_options
def mv(cluster: ClusterChoice, sources: tuple[str, ...], target: str) -> None:
    """Rename or move files and directories, each by one atomic change.

    If TARGET ends in a slash or is a directory, they go into it. A file takes the place of a file;
    a directory never replaces anything.
    """
    client = cluster.connect()
    found = expand(client, sources)
    names = [base_name(status.path) for status in found]
    for status, path in zip(found, place(client, target, names, into=len(names) > 1), strict=True):
        client.rename(status.path, path, replace=status.kind is EntryKind.FILE)


@click.command()
@_paths_argument
@click.option("-p", "--parents", is_flag=True, help="Make missing parents; existing is fine.")
@cluster_options
@terminal_options
def mkdir(cluster: ClusterChoice, paths: tuple[str, ...], parents: bool) -> None:
    """Make directories."""
    client = cluster.connect()
    for text in paths:
        client.make_directory(parse_path(text), parents=parents, exist_ok=parents)


@click.command()
@click.argument("paths", nargs=-1)
@click.option("-h", "--human", is_flag=True, help="Show sizes in KiB, MiB, ...")
@_json_option
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
@_paths_argument
@_json_option
@cluster_options
@terminal_options
def stat(cluster: ClusterChoice, paths: tuple[str, ...], as_json: bool) -> None:
    """Show what the master knows of files and directories."""
    found = expand(cluster.connect(), paths)
    if as_json:
        echo_json(found)
        return
    for status in found:
        rows = [
            ("path", status.path),
            ("kind", str(status.kind)),
            ("size", f"{status.size_bytes} ({format_bytes(status.size_bytes)})"),
            ("chunks", str(status.chunk_count)),
            ("replication", str(status.replication)),
            ("digest", status.digest or "-"),
            ("created", _local_time(status.created_ms)),
            ("modified", _local_time(status.modified_ms)),
        ]
        click.echo("\n".join(format_table((), rows)))


fs_commands: list[click.Command] = [
    *(ls, cat, head, tail, put, get, rm, mv, mkdir, du, stat),
    *(checksum, fsck, locations, scrub),
]
