"""A storage cluster for a benchmark: real processes on a real disk, thrown away afterwards."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout
from minigfs.cluster.processes import start_missing, stop_all
from minigfs.cluster.state import ClusterState, load_state
from minigfs.cluster.storage import STORAGE_KINDS, StorageShape, await_storage, prepare_storage
from minigfs.errors import MinigfsError, StartFailed
from minigfs.master.messages import ClusterReport

__all__ = ["ScratchCluster", "scratch_cluster"]

_PATIENCE_S = 120.0
_LOOK_S = 0.01
_LAG_MAX = 100  # entries of the log that a master may be behind and still be counted as back


class ScratchCluster:
    """Masters and chunkservers, for whoever measures them and kills them."""

    def __init__(self, layout: ClusterLayout, state: ClusterState) -> None:
        self.layout = layout
        self._state = state

    def start(self) -> None:
        """Start whatever does not run."""
        self._state = start_missing(self.layout, self._state, STORAGE_KINDS)
        await_storage(self.layout, self._state)

    def stop(self) -> None:
        stop_all(self.layout, load_state(self.layout) or self._state)

    def client(self) -> MinigfsClient:
        return MinigfsClient(ClientConfig.discover(home=str(self.layout.home)))

    def kill_leader(self) -> None:
        """Send SIGKILL to the master that leads."""
        leader = next(m for m in self.client().report().masters if m.role == "leader")
        os.kill(leader.pid, signal.SIGKILL)

    def kill_chunkserver(self) -> None:
        """Send SIGKILL to the one that stores most."""
        victim = max(self.client().report().chunkservers, key=lambda server: server.bytes)
        os.kill(victim.pid, signal.SIGKILL)

    def restart_missing(self) -> None:
        """Start what was killed again, and return when all masters are up to date."""
        self.start()
        expected = len(self._state.with_role("master"))

        def are_back(report: ClusterReport) -> bool:
            indexes = [master.commit_index for master in report.masters]
            return len(indexes) == expected and max(indexes) - min(indexes) < _LAG_MAX

        self.await_report(are_back, "every master is up to date")

    def await_health(self, *words: str) -> ClusterReport:
        return self.await_report(
            lambda report: report.health in words, f"the health is {' or '.join(words)}"
        )

    def await_report(self, is_wanted: Callable[[ClusterReport], bool], what: str) -> ClusterReport:
        """The first report that is as wanted. `StartFailed` if none is in two minutes."""
        client, deadline_s = self.client(), time.monotonic() + _PATIENCE_S
        last = "no master answers"
        while time.monotonic() < deadline_s:
            try:
                report = client.report()
            except MinigfsError as error:  # no leader just now
                last = str(error)
            else:
                if is_wanted(report):
                    return report
                last = f"{report.health}: {'; '.join(report.reasons)}"
            time.sleep(_LOOK_S)  # only asking tells
        raise StartFailed(
            f"after {_PATIENCE_S:g} s it is not so that {what} ({last}): see {self.layout.logs}"
        )

    def chunk_files(self) -> Iterator[Path]:
        """The files that the chunkservers keep chunks in."""
        for server in self.client().report().chunkservers:
            yield from Path(server.dir).rglob("*.chunk")

    def forbid_lending(self) -> None:
        """Take away the sockets through which readers of this machine borrow chunk files."""
        for server in self.client().report().chunkservers:
            for path in Path(server.dir).rglob("*.sock"):
                path.unlink()


@contextmanager
def scratch_cluster(
    directory: Path | None, *, masters: int, chunkservers: int
) -> Iterator[ScratchCluster]:
    """A running cluster with all its files below ``directory`` (default: that for temporaries)."""
    with tempfile.TemporaryDirectory(prefix="minigfs-bench-", dir=directory) as home:
        layout = ClusterLayout(Path(home))
        with layout.locked():
            shape = StorageShape(masters=masters, chunkservers=chunkservers)
            cluster = ScratchCluster(layout, prepare_storage(layout, shape))
            try:
                cluster.start()
                yield cluster
            finally:
                cluster.stop()
