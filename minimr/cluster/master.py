"""The master of a minimr cluster: the file system and the job coordinator on one log."""

from collections.abc import Callable

from minigfs.master.options import MasterOptions
from minigfs.master.process import serve_master
from minigfs.master.service import FileSystemService
from minigfs.ports import SystemClock, SystemRng
from minigfs.transport.address import Address
from minimr.cluster.jobs_service import CoordinatorService
from minimr.formats.storage import Storage

__all__ = ["serve_cluster_master"]


async def serve_cluster_master(options: MasterOptions, *, ready: Callable[[Address], None]) -> None:
    """Serve until SIGTERM or SIGINT; see ``minigfs.master.process.serve_master``."""
    clock = SystemClock()
    files = FileSystemService(options.config, options, clock, SystemRng())
    jobs = CoordinatorService(files, clock, discard_staging=Storage().remove)
    await serve_master(options, [files, jobs], ready=ready)
