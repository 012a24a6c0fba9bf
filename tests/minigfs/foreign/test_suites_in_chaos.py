"""The same suites while a chunkserver dies every two seconds and the leading master every five."""

import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.cluster import ClusterLayout, load_state, start_missing
from minigfs.cluster.processes import running_pid
from minigfs.cluster.storage import STORAGE_KINDS, StorageShape, await_storage, prepare_storage
from minigfs.errors import MinigfsError
from tests.minigfs.conftest import CHUNK_BYTES, stop_cluster
from tests.minigfs.foreign.suite_runs import SUITES, run_suite

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]

CHUNKSERVER_DIES_EVERY_S = 2.0
LEADER_DIES_EVERY_S = 5.0
LEADER_KILLS_MIN = 2  # a quick machine runs a suite again until it has met as many

logger = logging.getLogger(__name__)


class Chaos:
    """Kills processes by the clock, and starts them again at once, until it is stopped."""

    def __init__(self, layout: ClusterLayout) -> None:
        self._layout = layout
        self._client = MinigfsClient(ClientConfig.discover(home=str(layout.home)))
        self._stopping = threading.Event()
        self._chunkservers = itertools.cycle(
            record.name for record in self._state().with_role("chunkserver")
        )
        self._threads = [
            threading.Thread(
                target=self._every, args=(CHUNKSERVER_DIES_EVERY_S, self._next_server)
            ),
            threading.Thread(target=self._every, args=(LEADER_DIES_EVERY_S, self._leader)),
        ]
        self._starting = threading.Lock()  # the state file has one writer
        self.kills: list[str] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.error is not None:
            raise self.error

    def _state(self):
        state = load_state(self._layout)
        assert state is not None
        return state

    def _every(self, seconds: float, victim: Callable[[], str | None]) -> None:
        due = time.monotonic() + seconds
        try:
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                due += seconds
                name = victim()
                if name is not None:
                    self._kill(name)
        except BaseException as error:
            self.error = error

    def _next_server(self) -> str | None:
        return next(self._chunkservers)

    def _leader(self) -> str | None:
        try:
            report = self._client.report()
        except MinigfsError:
            return None  # nobody leads just now: dead enough
        leading = [master.pid for master in report.masters if master.role == "leader"]
        records = self._state().with_role("master")
        return next((record.name for record in records if record.pid in leading), None)

    def _kill(self, name: str) -> None:
        with self._starting:
            pid = running_pid(self._state().record(name))
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.kills.append(name)
            with self._layout.locked():
                start_missing(self._layout, self._state(), STORAGE_KINDS, only={name})


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterLayout]:
    """Three masters and three chunkservers that nobody else uses."""
    layout = ClusterLayout(tmp_path_factory.mktemp("chaos") / "home")
    try:
        with layout.locked():
            state = prepare_storage(layout, StorageShape(masters=3, chunk_bytes=CHUNK_BYTES))
            await_storage(layout, start_missing(layout, state, STORAGE_KINDS))
        yield layout
    finally:
        stop_cluster(layout)


@pytest.mark.parametrize("name", SUITES)
def test_every_test_of_the_suite_passes_in_chaos(replicated: ClusterLayout, name: str) -> None:
    with Chaos(replicated) as chaos:
        while sum(kill.startswith("master") for kill in chaos.kills) < LEADER_KILLS_MIN:
            run_suite(name, replicated.home, timeout_s=360)
    assert sum(kill.startswith("chunkserver") for kill in chaos.kills) > LEADER_KILLS_MIN
