"""``make bench-calm``: no election that no fault caused, under jobs and file-system load together.

A cluster of three masters runs url-count over and over, while clients write, rename and remove
small files as fast as they can, for ten minutes or ``--seconds``. At the end the term of the
masters says how many elections there were: the first one, and none after it. The longest wait of a
client is printed as well. Exit 1 if there was another election.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import minimr
from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minimr.datasets import access_log
from minimr.jobs import url_count

__all__ = ["main"]

CLIENTS = 8


class Load:
    """Clients of the file system, each in a thread, until ``stop``."""

    def __init__(self, home: Path) -> None:
        self._client = MinigfsClient(ClientConfig.discover(home=str(home)))
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]
        self.changes = [0] * CLIENTS
        self.longest_s = [0.0] * CLIENTS
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        root = f"/load/{number}"
        self._client.make_directory(root, parents=True)
        for count in range(1 << 40):
            if self._stopped.is_set():
                return
            began = time.monotonic()
            path = f"{root}/{count % 500}"
            with self._client.open_writer(f"{path}.new") as writer:
                writer.write(b"x" * 1024)
            self._client.rename(f"{path}.new", path, replace=True)
            if count % 10 == 9:
                self._client.remove(path)
            self.longest_s[number] = max(self.longest_s[number], time.monotonic() - began)
            self.changes[number] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "access.log"
        access_log.write(str(log), size_bytes=100_000_000, seed=1)
        return _run(Path(scratch) / "home", log, arguments.seconds)


def _run(home: Path, log: Path, seconds: int) -> int:
    with minimr.LocalCluster(workers=2, masters=3, directory=home) as cluster:
        client = MinigfsClient(ClientConfig.discover(home=str(home)))
        first = client.report().elections
        load = Load(home)
        jobs, ends = 0, time.monotonic() + seconds
        try:
            while time.monotonic() < ends:
                cluster.submit(
                    url_count.job({}), input=str(log), output="minigfs:///out", overwrite=True
                ).wait()
                jobs += 1
        finally:
            load.stop()
        elections = client.report().elections - first
        print(
            f"{seconds} s: {jobs} jobs of {log.stat().st_size / 1e6:.0f} MB, "
            f"{sum(load.changes)} files written and renamed by {CLIENTS} clients, "
            f"longest wait {max(load.longest_s):.2f} s, {elections} elections"
        )
    shutil.rmtree(home, ignore_errors=True)
    return 1 if elections else 0


if __name__ == "__main__":
    sys.exit(main())
