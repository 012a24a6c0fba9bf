"""Changes of the tree: each is one atomic change at the masters, and none moves bytes."""

from typing import TYPE_CHECKING

import click

from minigfs.cli.arguments import (
    format_kept,
    json_option,
    paths_argument,
    replication_option,
    retention_option,
)
from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.listing import local_time
from minigfs.cli.paths import base_name, expand, parse_path, place
from minigfs.client.tree_paths import outermost
from minigfs.errors import FileMissing, InvalidPath, IsDirectory, NotDirectory
from minigfs.master.messages import EntryKind
from minigfs.terminal import (
    Terminal,
    echo_json,
    format_bytes,
    format_count,
    format_table,
    terminal_options,
)

if TYPE_CHECKING:
    from minigfs.client.client import MinigfsClient

__all__ = ["clone", "cp", "mkdir", "mv", "policy", "rm", "setrep", "undelete"]


@click.command()
@paths_argument
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
        for path in outermost([status.path for status in found]):
            try:
                client.remove(path, recursive=recursive, now=now)
            except FileMissing:  # somebody else was faster
                if not force:
                    raise


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
@click.argument("sources", nargs=-1, required=True, metavar="PATH...")
@click.argument("target", metavar="TARGET")
@click.option("-r", "--recursive", is_flag=True, help="Copy directories with all in them.")
@click.option("-n", "--no-clobber", is_flag=True, help="Fail if a file is there already.")
@cluster_options
@terminal_options
def cp(
    cluster: ClusterChoice,
    sources: tuple[str, ...],
    target: str,
    recursive: bool,
    no_clobber: bool,
) -> None:
    """Copy files and, with -r, directories inside the cluster, at no cost in space.

    If TARGET ends in a slash or is a directory, they go into it. A copy shares its bytes with what
    it was made from, until one of the two is written to.
    """
    client = cluster.connect()
    found = expand(client, sources)
    for status in found:
        if status.kind is EntryKind.DIRECTORY and not recursive:
            raise IsDirectory(f"{status.path}: a directory; copy it with -r")
    names = [base_name(status.path) for status in found]
    for status, path in zip(found, place(client, target, names, into=len(names) > 1), strict=True):
        replace = status.kind is EntryKind.FILE and not no_clobber
        client.clone(status.path, path, replace=replace)


@click.command()
@click.argument("source", metavar="PATH")
@click.argument("target", metavar="TARGET")
@cluster_options
@terminal_options
def clone(cluster: ClusterChoice, source: str, target: str) -> None:
    """Make TARGET a copy of a file or directory as it is at one moment.

    As `cp -r`, but TARGET is exactly the new path, and nothing may be there.
    """
    cluster.connect().clone(parse_path(source), parse_path(target))


@click.command()
@paths_argument
@click.option("-p", "--parents", is_flag=True, help="Make missing parents; existing is fine.")
@replication_option
@retention_option
@cluster_options
@terminal_options
def mkdir(
    cluster: ClusterChoice,
    paths: tuple[str, ...],
    parents: bool,
    replication: int | None,
    retention: int | None,
) -> None:
    """Make directories, perhaps with a policy for what will be in them (see `policy`)."""
    client = cluster.connect()
    for text in paths:
        path = parse_path(text)
        with client.transaction() as change:
            change.make_directory(path, parents=parents, exist_ok=parents)
            if replication is not None or retention is not None:
                change.set_policy(path, replication=replication, retention_ms=retention)


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--to", "target", help="Bring it back to this path instead. Needs one PATH.")
@click.option("--list", "only_list", is_flag=True, help="Show what was removed at or below PATHs.")
@json_option
@cluster_options
@terminal_options
def undelete(
    cluster: ClusterChoice,
    paths: tuple[str, ...],
    target: str | None,
    only_list: bool,
    as_json: bool,
) -> None:
    """Bring back what was removed last from a path; without PATHs, show what can come back.

    A thing that was removed with its directory can be brought back alone.
    """
    client = cluster.connect()
    if only_list or not paths:
        _show_trash(client, [parse_path(text) for text in paths] or ["/"], as_json=as_json)
        return
    if target is not None and len(paths) > 1:
        raise InvalidPath(f"{len(paths)} things cannot all be {target}: bring them back one by one")
    for text in paths:
        client.undelete(parse_path(text), None if target is None else parse_path(target))


def _show_trash(client: "MinigfsClient", paths: list[str], *, as_json: bool) -> None:
    entries = [entry for path in paths for entry in client.list_trash(path)]
    if as_json:
        echo_json(entries)
        return
    rows = [
        (
            local_time(entry.removed_ms),
            local_time(entry.kept_until_ms),
            format_bytes(entry.size_bytes)
            if entry.kind is EntryKind.FILE
            else format_count(entry.file_count, "file"),
            entry.path if entry.kind is EntryKind.FILE else f"{entry.path}/",
        )
        for entry in sorted(entries, key=lambda entry: entry.removed_ms)
    ]
    if rows:
        click.echo("\n".join(format_table(("REMOVED", "KEPT UNTIL", "SIZE", "PATH"), rows)))


@click.command()
@click.argument("replication", type=click.IntRange(min=1), metavar="N")
@paths_argument
@click.option("-R", "--recursive", is_flag=True, help="Files that are below directories, too.")
@cluster_options
@terminal_options
@click.pass_obj
def setrep(
    terminal: Terminal,
    cluster: ClusterChoice,
    replication: int,
    paths: tuple[str, ...],
    recursive: bool,
) -> None:
    """Give files N replicas; a directory: what will be written below it.

    With -R, files that are below it now are given N, too. Replicas are made or dropped in the
    background; see `status`.
    """
    client = cluster.connect()
    for status in expand(client, paths):
        count = client.set_replication(status.path, replication, recursive=recursive)
        if terminal.verbose:
            terminal.say(f"{status.path}: {format_count(count, 'file')} changed")


@click.command()
@click.argument("path")
@replication_option
@retention_option
@json_option
@cluster_options
@terminal_options
def policy(
    cluster: ClusterChoice,
    path: str,
    replication: int | None,
    retention: int | None,
    as_json: bool,
) -> None:
    """Show or set what holds for what is written and removed below a directory."""
    client, parsed = cluster.connect(), parse_path(path)
    if replication is not None or retention is not None:
        client.set_policy(parsed, replication=replication, retention_ms=retention)
    report = client.policy(parsed)
    if as_json:
        echo_json(report)
        return
    kept = format_kept(report.retention_ms) if report.retention_ms else "not at all"
    rows = [
        ("replicas", str(report.replication), _origin(report.own_replication)),
        ("what is removed is kept", kept, _origin(report.own_retention_ms)),
    ]
    click.echo("\n".join(format_table((), rows)))


def _origin(own: int | None) -> str:
    return "inherited" if own is None else "set here"
