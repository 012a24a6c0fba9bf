"""A whole cluster for a test or a notebook: real processes in a temporary directory."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from minigfs.closing import ClosedOnExit
from minigfs.cluster import ClusterLayout
from minigfs.cluster.storage import StorageShape
from minimr import runner
from minimr.cluster import deploy
from minimr.cluster.status import ClusterStatus
from minimr.config import DEFAULT_BACKUP_POLICY, PROGRESS_DEADLINE_MS
from minimr.job import Job

__all__ = ["LocalCluster"]


class LocalCluster(ClosedOnExit):
    """Masters, chunkservers and Ray workers of this machine, as long as the ``with`` block lasts.

    ::

        with minimr.LocalCluster(workers=2) as cluster:
            handle = cluster.submit(job, input="access.log", output="minigfs:///out")
            result = handle.wait()

    Parameters
    ----------
    workers, chunkservers : int
        How many of each.
    masters : int, optional
        1 starts faster, 3 survive the death of one. By default what the directory's cluster has, or
        1 for a new one.
    replication : int, optional
        Replicas of each chunk; by default 3, or one per chunkserver if there are fewer.
    chunk_bytes : int, optional
        Size of a chunk; by default 64 MiB.
    hosts : int, optional
        Spread the processes over this many host labels, as if they were so many machines.
    directory : path, optional
        Home of the cluster, which stays when the block ends; a later one finds all data there. By
        default a temporary directory, which does not.
    """

    def __init__(
        self,
        workers: int = 2,
        chunkservers: int = 3,
        *,
        masters: int | None = None,
        replication: int | None = None,
        chunk_bytes: int | None = None,
        hosts: int | None = None,
        directory: str | Path | None = None,
    ) -> None:
        self._is_temporary = directory is None
        home = tempfile.mkdtemp(prefix="minimr-") if directory is None else directory
        self._layout = ClusterLayout(Path(home).absolute())
        is_new = not self._layout.state_file.exists()
        self._shape = deploy.ClusterShape(
            storage=StorageShape(
                masters=1 if masters is None and is_new else masters,
                chunkservers=chunkservers,
                replication=replication,
                chunk_bytes=chunk_bytes,
                hosts=hosts,
            ),
            workers=workers,
        )

    @property
    def home(self) -> Path:
        """The cluster's directory: ``MINIMR_HOME``, or ``--dir`` of the commands."""
        return self._layout.home

    @property
    def storage_options(self) -> dict[str, str]:
        """For fsspec, pandas, pyarrow: ``pd.read_csv("minigfs:///x", storage_options=...)``."""
        return {"home": str(self.home)}

    def __enter__(self) -> Self:
        try:
            self.start_missing()
        except BaseException:  # Ctrl-C too: nothing is left running
            self.close()
            raise
        return super().__enter__()

    def close(self) -> None:
        """Stop the processes, and remove the directory if it is temporary. Twice is no error."""
        deploy.down(self._layout)
        if self._is_temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    def start_missing(self) -> None:
        """Start every process that does not run: what ``minimr up`` does again."""
        deploy.up(self._layout, self._shape)

    def status(self) -> ClusterStatus:
        """What ``minimr status --json`` shows."""
        return deploy.status(self._layout)

    def submit(
        self,
        job: Job,
        *,
        input: str | Sequence[str],  # noqa: A002 - named as users say it
        output: str,
        reducers: int | None = None,
        split_size: int | None = None,
        memory: int | None = None,
        overwrite: bool = False,
        backup_policy: str = DEFAULT_BACKUP_POLICY,
        task_timeout_s: int = PROGRESS_DEADLINE_MS // 1000,
        max_bad: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> runner.JobHandle:
        """Start a job on this cluster; see `minimr.run` for the parameters."""
        return runner.submit(
            job,
            input=input,
            output=output,
            reducers=reducers,
            split_size=split_size,
            backend="ray",
            memory=memory,
            overwrite=overwrite,
            backup_policy=backup_policy,
            task_timeout_s=task_timeout_s,
            max_bad=max_bad,
            settings=settings or {},
            home=str(self.home),
        )

    def run(
        self,
        job: Job,
        *,
        input: str | Sequence[str],  # noqa: A002 - named as users say it
        output: str,
        reducers: int | None = None,
        split_size: int | None = None,
        memory: int | None = None,
        overwrite: bool = False,
        backup_policy: str = DEFAULT_BACKUP_POLICY,
        task_timeout_s: int = PROGRESS_DEADLINE_MS // 1000,
        max_bad: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> runner.Result:
        """Run a job on this cluster and wait for it; see `minimr.run`."""
        return self.submit(
            job,
            input=input,
            output=output,
            reducers=reducers,
            split_size=split_size,
            memory=memory,
            overwrite=overwrite,
            backup_policy=backup_policy,
            task_timeout_s=task_timeout_s,
            max_bad=max_bad,
            settings=settings,
        ).wait()
