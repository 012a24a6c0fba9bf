"""`up`, `down` and `status`: the processes of a storage cluster on this machine."""

import functools
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click
from msgspec.structs import replace

from minigfs.cli.background import (
    SCRUB_DAYS,
    SCRUB_DAYS_HELP,
    repair_rate_option,
    scrub_rate_option,
)
from minigfs.cli.connect import ClusterChoice, cluster_options, home_option, layout_of
from minigfs.cli.trust import tls_options
from minigfs.cluster import (
    ClusterState,
    ProcessEvent,
    load_state,
    stop_all,
)
from minigfs.cluster.masters import start_cluster
from minigfs.cluster.state import Rates
from minigfs.cluster.storage import (
    STORAGE_KINDS,
    StorageShape,
    await_storage,
    prepare_storage,
)
from minigfs.errors import ClusterError, NoQuorum
from minigfs.master.messages import ChunkserverReport, ClusterReport
from minigfs.terminal import (
    Terminal,
    bytes_option,
    echo_json,
    format_bytes,
    format_count,
    format_table,
    terminal_options,
)
from minigfs.transport.security import TlsFiles

__all__ = [
    "down",
    "format_scrubbed",
    "process_line",
    "status",
    "storage_lines",
    "storage_shape",
    "storage_status",
    "up",
]


def process_line(event: ProcessEvent) -> str:
    """One line about one process, for people."""
    record = event.record
    took = f"{event.took_ms / 1000:.2f} s" if event.what == "started" else ""
    pid = f"pid {record.pid}" if record.pid is not None else ""
    return f"{record.name:<16} {event.what:<8} {record.address:<21} {pid:<12} {took}".rstrip()


def storage_shape(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that shape a storage cluster; the command gets them as ``storage``."""

    @click.option("--masters", type=int, help="Number of masters.  [default: 3]")
    @click.option("--chunkservers", type=int, help="Number of chunkservers.  [default: 3]")
    @click.option("--replication", type=int, help="Replicas of each chunk.  [default: 3]")
    @bytes_option("--chunk-size", "chunk_bytes", help="Size of a chunk.  [default: 64MiB]")
    @click.option("--hosts", type=int, help="Spread the processes over this many host labels.")
    @tls_options
    @repair_rate_option
    @scrub_rate_option
    @click.option(
        "--scrub-days",
        type=click.FloatRange(min=0, min_open=True),
        help=f"{SCRUB_DAYS_HELP}  [default: {SCRUB_DAYS}]",
    )
    @functools.wraps(command)
    def with_shape(
        *positional: Any,
        masters: int | None,
        chunkservers: int | None,
        replication: int | None,
        chunk_bytes: int | None,
        hosts: int | None,
        tls: TlsFiles | None,
        repair_rate: int | None,
        scrub_rate: int | None,
        scrub_days: float | None,
        **others: Any,
    ) -> None:
        shape = StorageShape(
            masters=masters,
            chunkservers=chunkservers,
            replication=replication,
            chunk_bytes=chunk_bytes,
            hosts=hosts,
            tls=tls,
            rates=Rates(
                repair_bytes_per_second=repair_rate,
                scrub_bytes_per_second=scrub_rate,
                scrub_days=scrub_days,
            ),
        )
        command(*positional, storage=shape, **others)

    return with_shape


@click.command()
@home_option
@storage_shape
@click.option("--json", "as_json", is_flag=True, help="Print what runs as JSON.")
@terminal_options
@click.pass_obj
def up(
    terminal: Terminal,
    home: str | None,
    storage: StorageShape,
    as_json: bool,
) -> None:
    """Start a cluster on this machine, or whatever of it is not running.

    The first start fixes chunk size, replication and ports; all data is found again by later ones.
    Rates hold for the processes that are started from now on.
    """
    began_ns = time.monotonic_ns()
    layout = layout_of(home)

    def waiting() -> None:
        terminal.say(f"waiting for another start or stop in {layout.home}")

    with layout.locked(waiting):
        state = prepare_storage(layout, storage)
        state = start_cluster(
            layout, state, STORAGE_KINDS, progress=lambda event: terminal.say(process_line(event))
        )
        await_storage(layout, state)
    took_ms = (time.monotonic_ns() - began_ns) // 1_000_000
    terminal.say(f"ready in {took_ms / 1000:.1f} s: {_summary(state)}, in {layout.home}")
    if as_json:
        echo_json({"home": str(layout.home), "cluster": state})


def _summary(state: ClusterState) -> str:
    return ", ".join(
        (
            format_count(len(state.with_role("master")), "master"),
            format_count(len(state.with_role("chunkserver")), "chunkserver"),
            f"{format_bytes(state.chunk_bytes)} chunks",
            format_count(state.replication, "replica"),
        )
    )


@click.command()
@home_option
@terminal_options
@click.pass_obj
def down(terminal: Terminal, home: str | None) -> None:
    """Stop the cluster's processes on this machine; `up` finds all data again."""
    layout = layout_of(home)
    stopped = 0

    def show(event: ProcessEvent) -> None:
        nonlocal stopped
        stopped += 1
        terminal.say(process_line(event))

    if layout.state_file.exists():
        with layout.locked():
            state = load_state(layout)
            if state is not None:
                stop_all(layout, state, progress=show)
    if stopped == 0:
        terminal.say(f"nothing was running in {layout.home}")


@click.command()
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@terminal_options
def status(cluster: ClusterChoice, as_json: bool) -> None:
    """Show the health of the cluster, its masters and its chunkservers.

    While no master leads, this is what is known of the masters, and the exit code is 3.
    """
    client = cluster.connect()
    try:
        _show_report(client.report(), as_json=as_json)
    except NoQuorum:
        with suppress(ClusterError):  # nobody is left who could tell
            known = replace(client.report(stale_ok=True), health="NO_QUORUM")
            _show_report(known, as_json=as_json)
        raise


def _show_report(report: ClusterReport, *, as_json: bool) -> None:
    if as_json:
        echo_json(storage_status(report))
    else:
        click.echo("\n".join(storage_lines(report)))


def storage_status(report: ClusterReport) -> dict[str, object]:
    """The storage part of ``status --json`` (DESIGN 5.1)."""
    return {
        "health": {"word": report.health, "reasons": report.reasons, "notes": report.notes},
        "cluster_id": report.cluster_id,
        "chunk_bytes": report.chunk_bytes,
        "replication": report.replication,
        "masters": report.masters,
        "elections": report.elections,
        "chunkservers": report.chunkservers,
        "files": report.file_count,
        "directories": report.directory_count,
        "chunks": report.chunk_count,
        "repair": report.repair,
        "trash": report.trash,
    }


def storage_lines(report: ClusterReport) -> list[str]:
    """The storage part of ``status``, for people."""
    reasons = "".join(f"\n  {reason}" for reason in (*report.reasons, *report.notes))
    masters = [
        (
            master.role,
            str(master.term),
            master.address,
            str(master.pid),
            str(master.commit_index),
            master.dir,
        )
        for master in report.masters
    ]
    servers = [
        (
            server.duty if server.alive else f"silent {server.last_heard_ms_ago // 1000} s",
            server.address,
            str(server.pid),
            server.host,
            f"{server.chunks:,}",
            format_bytes(server.bytes),
            format_bytes(server.free_bytes),
            format_scrubbed(server),
            server.dir,
        )
        for server in sorted(report.chunkservers, key=lambda server: (server.host, server.dir))
    ]
    stored = ", ".join(
        (
            format_count(report.file_count, "file"),
            format_count(report.chunk_count, "chunk"),
            f"{format_bytes(report.chunk_bytes)} a chunk",
            format_count(report.replication, "replica"),
        )
    )
    return [
        f"health: {report.health}{reasons}",
        stored,
        "",
        *format_table(("MASTER", "TERM", "ADDRESS", "PID", "COMMIT", "DIRECTORY"), masters),
        "",
        *format_table(
            (
                "CHUNKSERVER",
                "ADDRESS",
                "PID",
                "HOST",
                "CHUNKS",
                "STORED",
                "FREE",
                "SCRUBBED",
                "DIRECTORY",
            ),
            servers,
        ),
    ]


def format_scrubbed(server: ChunkserverReport) -> str:
    """Since when everything on a chunkserver was read, for people; and what was found wrong."""
    since = "-"
    if server.last_scrubbed_ms:
        since = datetime.fromtimestamp(server.last_scrubbed_ms / 1000, tz=UTC).strftime("%Y-%m-%d")
    return f"{since} ({server.damaged:,} damaged)" if server.damaged else since
