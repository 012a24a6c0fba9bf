"""`admin`: what keeps a cluster healthy. `admin masters` sees to the group of masters; for the
rest see ``admin_chunkservers``."""

from collections.abc import Callable, Mapping

import click

from minigfs.cli.admin_chunkservers import chunkservers, rebalance, report
from minigfs.cli.cluster import process_line
from minigfs.cli.connect import ClusterChoice, cluster_options, home_option, layout_of
from minigfs.cluster import ProcessKind, load_state
from minigfs.cluster.masters import start_cluster, take_out_master
from minigfs.cluster.storage import StorageShape, prepare_storage
from minigfs.errors import InvalidConfig
from minigfs.replication.admin import MasterList
from minigfs.terminal import Terminal, echo_json, format_table, terminal_options

__all__ = ["admin_group"]


def admin_group(kinds: Callable[[], Mapping[str, ProcessKind]]) -> click.Group:
    """The `admin` command of a program that starts processes as ``kinds()`` says."""

    @click.group()
    def admin() -> None:
        """See to the servers of a cluster."""

    @admin.group()
    def masters() -> None:
        """See to the group of masters, while it works."""

    @masters.command(name="add")
    @home_option
    @terminal_options
    @click.pass_obj
    def add(terminal: Terminal, home: str | None) -> None:
        """Start one more master on this machine; it joins the group."""
        layout = layout_of(home)
        with layout.locked():
            state = load_state(layout)
            if state is None:
                raise InvalidConfig(f"there is no cluster in {layout.home}: `up` makes one")
            count = len(state.with_role("master")) + 1
            state = prepare_storage(layout, StorageShape(masters=count))
            start_cluster(
                layout, state, kinds(), progress=lambda event: terminal.say(process_line(event))
            )

    for command in (_list, _remove, _transfer):
        masters.add_command(command)
    for other in (report, chunkservers, rebalance):
        admin.add_command(other)
    return admin


@click.command(name="list")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="Print the masters as JSON.")
@terminal_options
def _list(cluster: ClusterChoice, as_json: bool) -> None:
    """Show the masters; works as long as one of them runs."""
    with cluster.administrate() as admin:
        found = admin.list()
    if as_json:
        echo_json(found)
    else:
        click.echo("\n".join(_lines(found)))


@click.command(name="remove")
@cluster_options
@click.argument("member_id", metavar="ID")
@terminal_options
def _remove(cluster: ClusterChoice, member_id: str) -> None:
    """Take a master out of the group for ever, and stop it if it runs on this machine."""
    with cluster.administrate() as admin:
        removed = admin.remove(member_id)
    layout = layout_of(cluster.home)
    with layout.locked():
        state = load_state(layout)
        if state is not None:
            take_out_master(layout, state, removed.address)


@click.command(name="transfer")
@cluster_options
@click.argument("member_id", metavar="[ID]", default="")
@terminal_options
def _transfer(cluster: ClusterChoice, member_id: str) -> None:
    """Hand leadership to another master; without ID, to the one that has most of the log."""
    with cluster.administrate() as admin:
        click.echo("\n".join(_lines(admin.transfer(member_id))))


def _lines(found: MasterList) -> list[str]:
    rows = [
        (
            member.member_id,
            "leader" if member.member_id == found.leader else member.role,
            str(member.term),
            member.address,
            str(member.pid),
            str(member.commit_index),
            member.directory,
        )
        for member in found.members
    ]
    heads = ("ID", "ROLE", "TERM", "ADDRESS", "PID", "COMMIT", "DIRECTORY")
    return [*format_table(heads, rows), *([] if found.leader else ["no master leads"])]
