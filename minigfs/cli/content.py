"""The bytes of files: to the terminal, from and to local files."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minigfs.cli.arguments import paths_argument
from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.paths import base_name, check_distinct, expand, parse_path, place, walked
from minigfs.cli.transfer import (
    RandomAccess,
    blocks_from,
    blocks_of,
    first_lines,
    last_lines,
    local_tree,
    send,
    write_result,
)
from minigfs.cli.transfer_bar import TransferBar
from minigfs.errors import FileMissing, InvalidPath, IsDirectory, NotDirectory
from minigfs.files import write_whole
from minigfs.master.messages import EntryKind, FileStatus
from minigfs.terminal import Terminal, bytes_option, format_bytes, terminal_options

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient

__all__ = ["cat", "get", "head", "put", "tail"]

_Part = Callable[[RandomAccess, int], Iterator[bytes]]  # so many lines, or bytes


@click.command()
@paths_argument
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


def _part_command(name: str, summary: str, *, lines_of: _Part, bytes_of: _Part) -> click.Command:
    @click.command(name, help=summary)
    @paths_argument
    @click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True)
    @bytes_option("-c", "byte_count", help="Show this many bytes instead of lines.")
    @cluster_options
    @terminal_options
    def show(
        cluster: ClusterChoice, paths: tuple[str, ...], lines: int, byte_count: int | None
    ) -> None:
        client = cluster.connect()
        for status in _files(client, paths):
            with client.open_reader(status.path) as reader:
                if byte_count is None:
                    write_result(lines_of(reader, lines))
                else:
                    write_result(bytes_of(reader, byte_count))

    return show


def _first_bytes(reader: RandomAccess, count: int) -> Iterator[bytes]:
    return blocks_of(reader, end=count)


def _last_bytes(reader: RandomAccess, count: int) -> Iterator[bytes]:
    return blocks_of(reader, max(0, reader.size_bytes - count))


head = _part_command(
    "head",
    "Write the first lines of files to stdout.",
    lines_of=first_lines,
    bytes_of=_first_bytes,
)
tail = _part_command(
    "tail",
    "Write the last lines of files to stdout.",
    lines_of=last_lines,
    bytes_of=_last_bytes,
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
        with TransferBar(quiet=terminal.quiet) as bar:
            blocks = bar.following(blocks_from(sys.stdin.buffer), "stdin", None)
            send(client, blocks, parse_path(target), exclusive=no_clobber)
        return
    names = [_local_name(path) for path in locals_]
    with TransferBar(quiet=terminal.quiet) as bar:
        for local, path in zip(
            locals_, place(client, target, names, into=len(names) > 1), strict=True
        ):
            for file, below in local_tree(local) if local.is_dir() else ((local, ""),):
                file_path = f"{path}/{below}" if below not in ("", ".") else path
                if file.is_dir():
                    client.make_directory(file_path, parents=True, exist_ok=True)
                    continue
                _put_one(client, file, file_path, bar, exclusive=no_clobber)
                if terminal.verbose:
                    terminal.say(f"{file} -> {file_path} ({format_bytes(file.stat().st_size)})")


def _local_name(path: Path) -> str:
    """As it was given, not what a link leads to; of ``.`` and ``..`` what they stand for."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def _put_one(
    client: "MinigfsClient", file: Path, path: str, bar: TransferBar, *, exclusive: bool
) -> None:
    with file.open("rb", buffering=0) as stream:
        blocks = bar.following(blocks_from(stream), file.name, file.stat().st_size or None)
        send(client, blocks, path, exclusive=exclusive)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="PATH...")
@click.argument("target", metavar="LOCAL")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if a local file is there already.")
@cluster_options
@terminal_options
@click.pass_obj
def get(
    terminal: Terminal,
    cluster: ClusterChoice,
    sources: tuple[str, ...],
    target: str,
    no_clobber: bool,
) -> None:
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
    if into:
        check_distinct([str(root / base_name(source.path)) for source in found])
    with TransferBar(quiet=terminal.quiet) as bar:
        for source in found:
            start = root / base_name(source.path) if into else root
            for status in walked(client, [source]):
                below = status.path.removeprefix(source.path).lstrip("/")
                local = start / below if below else start
                _get_one(client, status, local, bar, no_clobber=no_clobber)


def _get_one(
    client: "MinigfsClient", status: FileStatus, local: Path, bar: TransferBar, *, no_clobber: bool
) -> None:
    if status.kind is EntryKind.DIRECTORY:
        local.mkdir(parents=True, exist_ok=True)
        return
    if no_clobber and local.exists():
        raise FileExistsError(17, "File exists", str(local))
    with client.open_reader(status.path) as reader:
        blocks = bar.following(blocks_of(reader), base_name(status.path), status.size_bytes)
        write_whole(local, blocks)
