"""`rescue` and `dump`: what can be done with the files of servers when no server runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigfs.cli.arguments import json_option
from minigfs.errors import DamageError
from minigfs.terminal import (
    Terminal,
    echo_json,
    format_bytes,
    format_count,
    terminal_options,
)

if TYPE_CHECKING:
    from minigfs.rescue import Rescued, RescueReport

__all__ = ["dump", "rescue"]

_file_argument = click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.command()
@click.argument(
    "directories",
    nargs=-1,
    required=True,
    metavar="DIR...",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="A new or empty directory."
)
@json_option
@terminal_options
@click.pass_obj
def rescue(terminal: Terminal, directories: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Put published files together again from the chunk files below DIR..., without any server.

    DIR are directories of chunkservers, or anything above them. What cannot be put together, and
    files that claim the same name, are listed; exit code 4 if any file is incomplete.
    """
    from minigfs.rescue import Rescue

    noted: list[Rescued] = []

    def told(rescued: "Rescued") -> None:
        if rescued.outcome != "rescued":
            noted.append(rescued)
            if not as_json:
                click.echo(_line(rescued))

    with Rescue(output) as work:
        for directory in directories:
            terminal.say(f"reading {directory}")
            work.scan(directory)
        report = work.restore(told)
    if as_json:
        echo_json({"report": _as_dict(report), "noted": [_as_dict(one) for one in noted]})
    else:
        click.echo("\n".join(_summary(report, output)))
    if report.incomplete:
        raise DamageError(
            f"{format_count(report.incomplete, 'file')} could not be put together: look for more "
            "directories of chunkservers, also their trash and quarantine"
        )


def _line(rescued: "Rescued") -> str:
    where = f" -> {rescued.target}" if rescued.target else ""
    why = f": {rescued.detail}" if rescued.detail else ""
    return f"{rescued.path} (file {rescued.file_id}): {rescued.outcome}{where}{why}"


def _summary(report: "RescueReport", output: Path) -> Iterator[str]:
    yield (
        f"{format_count(report.rescued, 'file')} rescued, {format_bytes(report.bytes)}, in {output}"
    )
    for count, what in (
        (report.conflicts, "of them claim the name of another one: its name ends in .~FILE-ID"),
        (report.unconfirmed, "more may never have been published: see _unconfirmed"),
        (report.incomplete, "incomplete"),
        (report.known_without_chunks, "known by name only: deleted, or lost with all chunks"),
        (report.damaged_chunk_files, "chunk files without a readable header"),
        (report.open_chunk_files, "chunk files were still appended to: their records are left out"),
        (report.stale_chunk_files, "chunk files of older states of files"),
    ):
        if count:
            yield f"{count:,} {what}"
    yield from (f"damaged catalogue {text}" for text in report.damaged_catalogues)


def _as_dict(value: Any) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}


@click.group()
def dump() -> None:
    """Print what stands in a file of a server, which need not run. Exit code 4 if it is damaged."""


@dump.command()
@_file_argument
@json_option
@terminal_options
def chunk(file: Path, as_json: bool) -> None:
    """A chunk file (chunks/*.chunk): its header, and every bad block."""
    from minigfs.dump import dump_chunk

    _print(dump_chunk, file, as_json)


@dump.command()
@_file_argument
@json_option
@terminal_options
def log(file: Path, as_json: bool) -> None:
    """A segment of a master's log (wal/*.wal): records, entries, commands."""
    from minigfs.dump import dump_log

    _print(dump_log, file, as_json)


@dump.command()
@_file_argument
@json_option
@terminal_options
def snapshot(file: Path, as_json: bool) -> None:
    """A master's snapshot (snapshot-INDEX-TERM): the whole state, record by record."""
    from minigfs.dump import dump_snapshot

    _print(dump_snapshot, file, as_json)


def _print(dumped: Callable[[Path], Iterator[dict[str, Any]]], file: Path, as_json: bool) -> None:
    """One line a row; of JSON, so that a program may read it line by line."""
    damage = ""
    for row in dumped(file):
        damage = row.get("damage", "")
        if as_json:
            click.echo(json.dumps(row))
        else:
            what = row.pop("what")
            fields = " ".join(f"{name}={_shown(value)}" for name, value in row.items())
            click.echo(f"{what} {fields}".rstrip())
    if damage:
        raise DamageError(f"{file}: {damage}")


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
