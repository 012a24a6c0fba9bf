"""The masters of a cluster on this machine: founded once, started, replaced when one is lost.

The first masters found the group together, before any of them runs. From then on a master is its
directory: one that was killed goes on from it. A directory that is gone took a member with it,
which may never come back (it promised things that nobody remembers), so `up` removes that member
from the group and lets a new one join in its place. Masters that are added later join as well.
"""

from collections.abc import Callable, Mapping

import msgspec

from minigfs.cluster.layout import ClusterLayout
from minigfs.cluster.processes import (
    ProcessEvent,
    ProcessKind,
    running_pid,
    start_missing,
    stop_one,
)
from minigfs.cluster.state import ClusterState, ProcessRecord, save_state

__all__ = ["found_masters", "start_cluster", "take_out_master"]

Progress = Callable[[ProcessEvent], None]


def found_masters(layout: ClusterLayout, state: ClusterState) -> ClusterState:
    """Make the first masters' directories; once, before any of them is started."""
    from minigfs.ports import SystemRng
    from minigfs.replication.founding import found_group

    if state.masters_founded:
        return state
    founders = [record for record in state.with_role("master") if not record.joins]
    found_group(
        [(layout.directory(record.name), record.address) for record in founders], SystemRng()
    )
    state = msgspec.structs.replace(state, masters_founded=True)
    save_state(layout, state)
    return state


def start_cluster(
    layout: ClusterLayout,
    state: ClusterState,
    kinds: Mapping[str, ProcessKind],
    *,
    progress: Progress = lambda _event: None,
) -> ClusterState:
    """`start_missing` for a whole cluster: masters that are lost, or new, join once others run."""
    state = _replace_lost(layout, state)
    newcomers = [record for record in state.with_role("master") if _is_newcomer(layout, record)]
    names = {record.name for record in newcomers}
    state = start_missing(layout, state, kinds, progress=progress, leave_out=names)
    for newcomer in newcomers:
        _retire_members_at(layout, newcomer.address)
        names.remove(newcomer.name)
        state = start_missing(layout, state, kinds, progress=progress, only={newcomer.name})
    return state


def _replace_lost(layout: ClusterLayout, state: ClusterState) -> ClusterState:
    """Masters whose log is gone will join anew, if there are others that know what it said."""
    masters = state.with_role("master")
    lost = [record for record in masters if not _has_member(layout, record)]
    if not lost or len(lost) == len(masters):
        return state
    for record in lost:
        _set_aside(layout, record)
    state = state.with_processes(msgspec.structs.replace(record, joins=True) for record in lost)
    save_state(layout, state)
    return state


def _has_member(layout: ClusterLayout, record: ProcessRecord) -> bool:
    from minigfs.replication.founding import holds_member

    return running_pid(record) is not None or holds_member(layout.directory(record.name))


def _is_newcomer(layout: ClusterLayout, record: ProcessRecord) -> bool:
    return record.joins and not _has_member(layout, record)


def take_out_master(layout: ClusterLayout, state: ClusterState, address: str) -> ClusterState:
    """The cluster without the master that listened there, which the group has removed."""
    for record in state.with_role("master"):
        if record.address == address:
            stop_one(record)
            _set_aside(layout, record)
            state = state.without(record.name)
            save_state(layout, state)
    return state


def _set_aside(layout: ClusterLayout, record: ProcessRecord) -> None:
    """Keep what is left of a directory that is no master's any more: somebody may look into it."""
    directory = layout.directory(record.name)
    if not directory.exists() or not any(directory.iterdir()):
        return
    number = 1
    while (aside := directory.with_name(f"{directory.name}.old-{number}")).exists():
        number += 1
    directory.rename(aside)


def _retire_members_at(layout: ClusterLayout, address: str) -> None:
    """Remove the members that listened where a new one is about to."""
    from minigfs.client.admin import MasterAdmin
    from minigfs.client.config import ClientConfig

    admin = MasterAdmin(ClientConfig.discover(home=str(layout.home), timeout_ms=30_000))
    try:
        for member in admin.list().members:
            if member.address == address:
                admin.remove(member.member_id)
    finally:
        admin.close()
