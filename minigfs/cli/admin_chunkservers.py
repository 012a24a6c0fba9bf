"""`admin report`, `admin chunkservers` and `admin rebalance`: the keeper's view of the data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from minigfs.cli.cluster import storage_lines, storage_status
from minigfs.cli.connect import ClusterChoice, cluster_options
from minigfs.cli.listing import local_time
from minigfs.terminal import (
    Terminal,
    echo_json,
    format_bytes,
    format_count,
    format_table,
    terminal_options,
)

if TYPE_CHECKING:
    from minigfs.client.chunkserver_admin import ChunkserverAdmin
    from minigfs.master.messages import ChunkserverReport, ClusterReport

__all__ = ["chunkservers", "rebalance", "report"]

_LOOK_INTERVAL_S = 0.5  # a heartbeat's: nothing is news sooner


@contextmanager
def _administer(cluster: ClusterChoice) -> "Iterator[ChunkserverAdmin]":
    from minigfs.client.chunkserver_admin import ChunkserverAdmin

    admin = ChunkserverAdmin(cluster.connect().config)
    try:
        yield admin
    finally:
        admin.close()


@click.command()
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@terminal_options
def report(cluster: ClusterChoice, as_json: bool) -> None:
    """Show how safe the data is, how full the servers are, and what is being done about it."""
    with _administer(cluster) as admin:
        found = admin.report()
    if as_json:
        echo_json(storage_status(found))
    else:
        lines = [*_repair_lines(found), *_trash_lines(found), *_scrub_lines(found)]
        click.echo("\n".join([*storage_lines(found), "", *lines]))


def _repair_lines(found: "ClusterReport") -> list[str]:
    repair = found.repair
    if repair is None:
        return []
    servers = [server for server in found.chunkservers if server.alive]
    stored = sum(server.bytes for server in servers)
    room = sum(server.capacity_bytes for server in servers)
    left = "unknown" if repair.remaining_ms is None else f"{repair.remaining_ms / 1000:.0f} s"
    eta = f", {left} left" if repair.missing_bytes else ""
    return [
        f"stored:  {format_bytes(stored)} with all replicas, on disks of {format_bytes(room)}",
        f"repair:  {repair.waiting:,} chunks wait, {repair.copying:,} are being copied, "
        f"{format_bytes(repair.missing_bytes)} to copy at {format_bytes(repair.bytes_per_second)}/s"
        + eta,
    ]


def _trash_lines(found: "ClusterReport") -> list[str]:
    trash = found.trash
    if trash is None or trash.next_expiry_ms is None:
        return ["trash:   empty"]
    below = f"{format_count(trash.files, 'file')}, {trash.directories:,} directories"
    first = local_time(trash.next_expiry_ms)
    return [f"trash:   {trash.things:,} removed things ({below}), the first goes {first}"]


def _scrub_lines(found: "ClusterReport") -> list[str]:
    servers = [server for server in found.chunkservers if server.alive]
    if not servers:
        return []
    bound_days = max(server.scrub_bound_ms for server in servers) / 86_400_000
    oldest_ms = min(server.last_scrubbed_ms for server in servers)
    since = f"all was read since {local_time(oldest_ms)}" if oldest_ms else "the first pass runs"
    return [f"scrub:   every byte is read again within {bound_days:g} days; {since}"]


@click.group()
def chunkservers() -> None:
    """See to the chunkservers."""


@chunkservers.command(name="list")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the chunkservers as JSON.")
@terminal_options
def _list(cluster: ClusterChoice, as_json: bool) -> None:
    """Show the chunkservers, and what each of them is there for."""
    with _administer(cluster) as admin:
        servers = admin.report().chunkservers
    if as_json:
        echo_json(servers)
    else:
        click.echo("\n".join(_server_lines(servers)))


def _server_lines(servers: "tuple[ChunkserverReport, ...]") -> list[str]:
    rows = [
        (
            server.id,
            server.duty if server.alive else f"silent {server.last_heard_ms_ago // 1000} s",
            server.address,
            server.host,
            server.rack or "-",
            f"{server.chunks:,}",
            format_bytes(server.bytes),
            f"{server.bytes * 100 / max(server.capacity_bytes, 1):.1f} %",
            format_bytes(server.free_bytes),
            server.dir,
        )
        for server in sorted(servers, key=lambda server: (server.rack, server.host, server.dir))
    ]
    heads = (
        *("ID", "DUTY", "ADDRESS", "HOST", "RACK", "CHUNKS", "STORED", "OF DISK", "FREE"),
        "DIRECTORY",
    )
    return format_table(heads, rows)


@chunkservers.command(name="decommission")
@cluster_options
@click.argument("name", metavar="ID")
@click.option("--force", is_flag=True, help="Even if too few others are left for every replica.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is empty.")
@terminal_options
@click.pass_obj
def _decommission(
    terminal: Terminal, cluster: ClusterChoice, name: str, force: bool, no_wait: bool
) -> None:
    """Move everything off a chunkserver; when this returns it can be stopped for good.

    Interrupted, the chunkserver is emptied all the same; `recommission` takes it back.
    """
    with _administer(cluster) as admin:
        server = admin.set_decommission(admin.known(name).id, True, force=force)
        told = -1
        while server.duty != "empty" and not no_wait:
            if server.chunks_left != told:
                told = server.chunks_left
                terminal.say(f"{server.address}: {told:,} chunks are not safe elsewhere yet")
            time.sleep(_LOOK_INTERVAL_S)  # the master is asked; it tells nobody by itself
            server = admin.known(server.id)
    if server.duty == "empty":
        terminal.say(f"{server.address} is empty: it can be stopped")
    else:
        terminal.say(f"{server.address} is being emptied: see `admin chunkservers list`")


@chunkservers.command(name="recommission")
@cluster_options
@click.argument("name", metavar="ID")
@terminal_options
@click.pass_obj
def _recommission(terminal: Terminal, cluster: ClusterChoice, name: str) -> None:
    """Use a chunkserver again that was, or was being, decommissioned."""
    with _administer(cluster) as admin:
        server = admin.set_decommission(admin.known(name).id, False)
    terminal.say(f"{server.address} takes chunks again")


@click.command()
@cluster_options
@click.option("--no-wait", is_flag=True, help="Do not wait until the servers are filled alike.")
@terminal_options
@click.pass_obj
def rebalance(terminal: Terminal, cluster: ClusterChoice, no_wait: bool) -> None:
    """Move replicas until the chunkservers are filled nearly alike.

    Interrupted, it goes on all the same, until the leading master changes.
    """
    with _administer(cluster) as admin:
        admin.start_rebalance()
        found = admin.report()
        while not no_wait and found.repair is not None and found.repair.rebalancing:
            time.sleep(_LOOK_INTERVAL_S)  # the master is asked; it tells nobody by itself
            found = admin.report()
    shares = ", ".join(
        f"{server.address} {format_bytes(server.bytes)}"
        for server in found.chunkservers
        if server.alive
    )
    terminal.say(f"{'begun' if no_wait else 'done'}: {shares}")
