"""`fsck`, `scrub`, `checksum` and `locations`: is what was stored still there, and where?"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from minigfs.cli.arguments import json_option
from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.listing import format_scrub_time, oldest_scrub
from minigfs.cli.paths import expand, parse_path
from minigfs.cli.transfer import blocks_of
from minigfs.errors import DamageError, IsDirectory, Unreachable
from minigfs.master.messages import EntryKind
from minigfs.terminal import (
    echo_json,
    format_bytes,
    format_count,
    format_table,
    terminal_options,
)

if TYPE_CHECKING:
    from minigfs.client.checking import CheckedChunk, Finding, ReplicaChecker
    from minigfs.client.scrub_times import ScrubTimes
    from minigfs.master.messages import Located

__all__ = ["checksum", "fsck", "locations", "scrub"]

_FINDINGS_KEPT_MAX = 100_000
_REPAIR_TIMEOUT_MS = 60_000


class _Tally:
    """What a check has come to so far."""

    def __init__(self) -> None:
        self.files = self.chunks = self.sound_replicas = self.sound_bytes = 0
        self.kinds: Counter[str] = Counter()
        self.findings: list[Finding] = []  # as many as a person may want to look at
        self._last_path = ""

    def add(self, checked: "CheckedChunk") -> None:
        self.files += checked.path != self._last_path
        self._last_path = checked.path
        self.chunks += checked.chunk is not None
        self.sound_replicas += checked.sound_count
        self.sound_bytes += checked.sound_bytes
        self.kinds.update(finding.kind for finding in checked.findings)
        self.findings += checked.findings[: _FINDINGS_KEPT_MAX - len(self.findings)]

    @property
    def damage(self) -> list["Finding"]:
        return [finding for finding in self.findings if finding.is_damage]

    def as_json(self, left: Iterable["Finding"], *, repaired: int) -> dict[str, object]:
        return {
            "files": self.files,
            "chunks": self.chunks,
            "sound_replicas": self.sound_replicas,
            "bytes": self.sound_bytes,
            "found": dict(self.kinds),
            "findings": self.findings,
            "repaired": repaired,
            "left": list(left),
        }

    def line(self) -> str:
        found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{format_count(self.files, 'file')}, {format_count(self.chunks, 'chunk')}, "
            f"{format_count(self.sound_replicas, 'sound replica')} "
            f"({format_bytes(self.sound_bytes)} read): {found or 'all is well'}"
        )


@click.command()
@click.argument("path", default="/")
@click.option("--quick", is_flag=True, help="Compare the stored sums only; read no data.")
@click.option("--repair", is_flag=True, help="Have bad replicas replaced, and wait for it.")
@json_option
@cluster_options
@terminal_options
def fsck(cluster: ClusterChoice, path: str, quick: bool, repair: bool, as_json: bool) -> None:
    """Compare every replica of every chunk at and below PATH with what was published.

    Names path, chunk, server and block of what is wrong, and replicas that were set aside because
    the masters never gave their version: those wait for a person, and are no damage. Exit code 4
    if there is damage (that was not repaired), 3 if some chunk could not be checked on any server.
    """
    _check(cluster, path, quick=quick, report=repair, wait=repair, as_json=as_json)


@click.command()
@click.argument("path", default="/")
@json_option
@cluster_options
@terminal_options
def scrub(cluster: ClusterChoice, path: str, as_json: bool) -> None:
    """Read every replica at and below PATH now, and tell the masters of bad ones.

    Chunkservers do so by themselves all the time, at leisure. Exit code 4 if damage was found.
    """
    _check(cluster, path, quick=False, report=True, wait=False, as_json=as_json)


def _check(
    cluster: ClusterChoice, path: str, *, quick: bool, report: bool, wait: bool, as_json: bool
) -> None:
    from minigfs.client.checking import ReplicaChecker

    tally = _Tally()
    client = cluster.connect()
    client.stat(parse_path(path))
    with ReplicaChecker(client.config, quick=quick) as checker:
        for checked in checker.check(parse_path(path)):
            tally.add(checked)
            if not as_json:
                for finding in checked.findings:
                    click.echo(str(finding))
        left = _repair(checker, tally.damage, wait=wait) if report else tally.damage
    repaired = len(tally.damage) - len(left) if wait else 0
    if as_json:
        echo_json(tally.as_json(left, repaired=repaired))
    else:
        if wait and tally.damage:
            click.echo(f"repaired: {repaired} of {len(tally.damage)}")
            for finding in left:
                click.echo(f"left: {finding}")
        click.echo(tally.line())
    _raise_for(tally, left)


def _repair(checker: "ReplicaChecker", damage: list["Finding"], *, wait: bool) -> list["Finding"]:
    from minigfs.client.checking import FindingKind

    for finding in damage:
        if finding.kind is not FindingKind.LOST:
            checker.report(finding)
    return checker.await_repair(damage, timeout_ms=_REPAIR_TIMEOUT_MS) if wait else damage


def _raise_for(tally: _Tally, left: list["Finding"]) -> None:
    from minigfs.client.checking import FindingKind

    if left:
        files = len({finding.path for finding in left})
        raise DamageError(
            f"damage in {format_count(files, 'file')}: what is bad on some servers is replaced by "
            "`fsck --repair`; what is lost must come from where the file came from"
        )
    if tally.kinds[FindingKind.UNAVAILABLE]:
        raise Unreachable(
            f"{tally.kinds[FindingKind.UNAVAILABLE]} chunks could not be checked: start the "
            "chunkservers that are missing (see `status`)"
        )


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--verify", is_flag=True, help="Read the files and hold them against their digests.")
@json_option
@cluster_options
@terminal_options
def checksum(cluster: ClusterChoice, paths: tuple[str, ...], verify: bool, as_json: bool) -> None:
    """Print the digest of whole files, as it was recorded when they were closed.

    It covers every byte: xxh3-64 over the digests of the chunks, each over its block sums.
    """
    client = cluster.connect()
    found = expand(client, paths)
    for status in found:
        if status.kind is EntryKind.DIRECTORY:
            raise IsDirectory(f"{status.path}: a directory has no checksum; name its files")
        if verify:  # every byte that a reader hands out was held against the log's digests
            with client.open_reader(status.path) as reader:
                for _ in blocks_of(reader):
                    pass
    if as_json:
        rows = [
            {"path": s.path, "digest": s.digest, "bytes": s.size_bytes, "verified": verify}
            for s in found
        ]
        echo_json(rows)
    else:
        for status in found:
            click.echo(f"{status.digest}  {status.path}")


@click.command()
@click.argument("path")
@json_option
@cluster_options
@terminal_options
def locations(cluster: ClusterChoice, path: str, as_json: bool) -> None:
    """Show the chunks of a file, the live servers to read each from, and since when it was read.

    SCRUBBED is when a server last read all of its replica and found it sound, of the server where
    that was longest ago; "never" is usual for what is younger than a few days.
    """
    client = cluster.connect()
    located = client.locations(parse_path(path))
    times = client.scrub_times(located)
    if as_json:
        echo_json(_with_times(located, times))
        return
    rows = [
        (
            str(chunk.index),
            f"{chunk.handle:016x}",
            str(chunk.version),
            str(chunk.length_bytes),
            f"{chunk.digest:016x}",
            format_scrub_time(oldest_scrub((chunk,), times)),
            ", ".join(f"{replica.address} ({replica.host})" for replica in chunk.replicas) or "-",
        )
        for chunk in located.chunks
    ]
    heads = ("CHUNK", "HANDLE", "VERSION", "BYTES", "DIGEST", "SCRUBBED", "SERVERS")
    click.echo("\n".join(format_table(heads, rows)))


def _with_times(located: "Located", times: "ScrubTimes") -> dict[str, object]:
    """The JSON of ``located``, with ``last_scrubbed_ms`` of each replica."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(located)
    for chunk in found["chunks"]:
        for replica in chunk["replicas"]:
            at = times.get((chunk["handle"], replica["address"]))
            replica["last_scrubbed_ms"] = at
    return found
