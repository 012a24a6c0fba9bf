"""The processes of a cluster on this machine: what `up`, `down` and `status` work on.

Theory of operation
-------------------
A cluster has a home directory (`minigfs.cluster.layout`)::

    HOME/cluster.json   what the cluster is made of: settings and one record per process
    HOME/client.json    where clients on this machine find it (masters, token file)
    HOME/token          the shared secret, mode 0600, made at the first start
    HOME/lock           held by whoever starts or stops processes
    HOME/logs/NAME.log  stdout and stderr of a process
    HOME/NAME/          a process's own directory

`cluster.json` says what should run; a record's ``pid`` and ``started`` say which operating-system
process it is. The pair names a process for ever (``started`` holds the boot and the start tick),
so a pid that the kernel gave to somebody else later is never taken for ours, let alone killed.

Starting (`minigfs.cluster.processes.start_missing`) spawns every record that is not running as a
detached session leader and then waits for all of them together. A process says that it is ready by
calling `announce_ready`, which writes one line into a pipe that its parent reads; the pipe's end
without a line is an early death, and the error shows the last line of the log. Records are started
in ascending and stopped in descending ``stage``; those of one stage at once. Ports are chosen when
a record is made and stay fixed, so a cluster keeps its addresses over restarts.

Adding kinds of processes from another package
----------------------------------------------
1. Make records: ``ProcessRecord(name="worker-0", role="worker", stage=1, ...)`` and put them into
   ``ClusterState.processes`` (`ClusterState.with_processes`); facts of your own go into
   ``ClusterState.settings``, which minigfs keeps and never reads.
2. Describe the role: a `ProcessKind` whose ``command(layout, state, record)`` gives the argument
   vector (and ``environment`` extra variables); the program calls `announce_ready` when it serves.
   A package may replace a kind of `minigfs.cluster.storage.STORAGE_KINDS` the same way: minimr's
   master also hosts the coordinator.
3. Start, with `minigfs.cluster.storage` for the storage part::

       with layout.locked():
           state = prepare_storage(layout, StorageShape(chunkservers=3))
           state = state.with_processes(my_records).with_settings({...})
           state = start_missing(layout, state, {**STORAGE_KINDS, **MY_KINDS}, progress=...)
           await_storage(layout, state)

   Stopping (`stop_all`) needs no kinds, so `minigfs down` also stops what others started.
"""

from minigfs.cluster.layout import ClusterLayout, default_home
from minigfs.cluster.processes import (
    ProcessEvent,
    ProcessKind,
    announce_ready,
    running_pid,
    start_missing,
    stop_all,
)
from minigfs.cluster.state import ClusterState, ProcessRecord, load_state, save_state

__all__ = [
    "ClusterLayout",
    "ClusterState",
    "ProcessEvent",
    "ProcessKind",
    "ProcessRecord",
    "announce_ready",
    "default_home",
    "load_state",
    "running_pid",
    "save_state",
    "start_missing",
    "stop_all",
]
