"""The process behind `serve workers`: a Ray head of our own and the workers that live in it.

It starts Ray and, while Ray starts, the short-lived process that makes the actors; it is ready when
a master knows every worker. Then it only watches: a killed worker is brought back by Ray, a
dead Ray is brought back here. It ends Ray when it ends itself; if it is killed, the next start, or
`minimr down`, ends what it left behind.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from minigfs.errors import InvalidConfig, StartFailed
from minigfs.transport.address import is_loopback
from minigfs.transport.metrics import Metric, process_metrics
from minigfs.transport.security import Security, TlsFiles, load_token
from minimr.backends.ray_actors import CreateWorkers, WorkerSpec
from minimr.cluster.ray_session import RayNotStarted, RaySession

if TYPE_CHECKING:
    from minigfs.transport.metrics_http import MetricsServer

__all__ = ["WorkersOptions", "check_foreign_ray", "end_workers", "serve_workers", "start_all"]

logger = logging.getLogger(__name__)

_SHORT_LIFE_MS = 10_000  # a Ray that lived no longer counts as one that did not start
_SHORT_LIFE_COUNT_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersOptions:
    """``directory`` holds one directory per worker. ``hosts`` are labels, given in turn;
    ``listen`` is where the first one's segment server listens, ``advertise`` what others reach that
    by; those of the next workers have the ports that follow, or any (port 0), then the same."""

    directory: Path
    listen: str
    masters: tuple[str, ...]
    token_file: Path
    cluster_id: str
    worker_count: int
    hosts: tuple[str, ...]
    racks: tuple[str, ...] = ()  # of the hosts, as many; none: not known
    memory_bytes: int = 0  # of one executor at most; 0: what the job asks for
    ray_address: str = ""  # of a Ray that is not ours; "": we start one
    tls: TlsFiles | None = None
    advertise: str = ""  # "": where it listens
    metrics: str = ""  # where to serve figures; the workers do so on the ports behind it

    def specs(self) -> tuple[WorkerSpec, ...]:
        return tuple(
            WorkerSpec(
                name=f"worker-{number}",
                directory=str(self.directory / str(number)),
                listen=_port_behind(self.listen, number),
                advertise=_port_behind(self.advertise, number),
                masters=self.masters,
                token_file=str(self.token_file),
                cluster_id=self.cluster_id,
                host=self.hosts[number % len(self.hosts)],
                worker_count=self.worker_count,
                memory_bytes=self.memory_bytes,
                rack=self.racks[number % len(self.racks)] if self.racks else "",
                tls=self.tls,
                metrics=_port_behind(self.metrics, number + 1),
            )
            for number in range(self.worker_count)
        )


def _port_behind(address: str, distance: int) -> str:
    """Of an address with a port of its own; any free port (0) stays any."""
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + distance}" if port.isdecimal() and port != "0" else address


def check_foreign_ray(address: str, *, insecure: bool) -> None:
    """`InvalidConfig` for a Ray that would let everybody in (DESIGN 6.14)."""
    if address and not insecure and os.environ.get("RAY_AUTH_MODE") != "token":
        raise InvalidConfig(
            f"the Ray at {address} is used without a token, so whoever reaches it can run code as "
            "you: start it with RAY_AUTH_MODE=token and set that here too, or say --insecure"
        )


class ForeignRay:
    """A Ray that somebody else started and will end: only our actors in it come and go."""

    def __init__(self, options: WorkersOptions) -> None:
        self.address = options.ray_address
        self.environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        if is_loopback(
            options.ray_address
        ):  # else Ray looks for it at this machine's outer address
            self.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        self._options = options

    def begin(self) -> None:
        """It runs already."""

    def await_begun(self) -> None:
        """It runs already."""

    def await_death(self) -> None:
        """Its end is not ours to see; we go on until we are told to end."""
        while True:
            signal.pause()

    def end(self) -> None:
        """End our actors, as far as Ray can still be reached."""
        try:
            _give_order(self, msgspec.structs.replace(_order(self, self._options), ends=True))
        except StartFailed as error:
            logger.warning("workers may be left in the Ray at %s: %s", self.address, error)


def ray_session(directory: Path, *, token_file: Path, cluster_id: str) -> RaySession:
    return RaySession(directory / "ray", token_file=token_file, cluster_id=cluster_id)


def end_workers(directory: Path, *, token_file: Path, cluster_id: str) -> Path | None:
    """End what a killed `serve workers` has left behind in its directory, if anything; where
    Ray's logs lie if they are not below that directory."""
    session = ray_session(directory, token_file=token_file, cluster_id=cluster_id)
    session.end()
    stray = session.stray_files
    return stray if stray is not None and stray.is_dir() else None


def serve_workers(options: WorkersOptions, *, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. `StartFailed` if Ray or the workers do not start."""
    session: RaySession | ForeignRay = (
        ForeignRay(options)
        if options.ray_address
        else ray_session(
            options.directory, token_file=options.token_file, cluster_id=options.cluster_id
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    short_lives = 0
    metrics = _metrics_server(options)
    try:
        while True:
            began_ns = time.monotonic_ns()
            start_all(session, options)
            ready()
            session.await_death()
            lived_ms = (time.monotonic_ns() - began_ns) // 1_000_000
            short_lives = short_lives + 1 if lived_ms < _SHORT_LIFE_MS else 0
            if short_lives == _SHORT_LIFE_COUNT_MAX:
                raise StartFailed(f"Ray ends as soon as it has started: see {options.directory}")
            logger.warning("Ray ended after %d ms; starting it again", lived_ms)
    finally:
        if metrics is not None:
            metrics.stop()
        session.end()


def _metrics_server(options: WorkersOptions) -> "MetricsServer | None":
    """Started, of this process itself."""
    if not options.metrics:
        return None
    from minigfs.transport.metrics_http import MetricsServer

    def collect() -> Iterator[Metric]:
        yield Metric("minimr_workers", "Workers that are kept running.", options.worker_count)
        yield from process_metrics()

    security = Security(load_token(options.token_file), options.cluster_id, options.tls)
    server = MetricsServer(collect, options.metrics, security)
    server.start(options.directory)
    return server


def start_all(session: RaySession | ForeignRay, options: WorkersOptions) -> None:
    """Ray now and then misses its own time limit, or a port that it was to have: it tries twice."""
    session.begin()
    try:
        _give_order(session, _order(session, options))
    except RayNotStarted as error:
        logger.warning("%s; once more", error)
        session.begin()
        _give_order(session, _order(session, options))


def _order(session: RaySession | ForeignRay, options: WorkersOptions) -> CreateWorkers:
    return CreateWorkers(
        ray_address=session.address,
        workers=options.specs(),
        namespace=f"minimr-{options.cluster_id}",
    )


def _give_order(session: RaySession | ForeignRay, order: CreateWorkers) -> None:
    with subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "minimr.backends.ray_actors"),
            msgspec.json.encode(order).decode(),
        ],
        env=session.environment,
        stdin=subprocess.PIPE,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
    ) as creator:
        try:
            session.await_begun()
            _, said = creator.communicate("\n")
        finally:
            creator.kill()
    if creator.returncode != 0:
        reason = said.strip().splitlines()[-1] if said.strip() else "no reason given"
        raise StartFailed(f"the workers did not start: {reason}")


def _exit(number: int, frame: FrameType | None) -> None:
    """End by an exception, so that every ``finally`` runs; once."""
    del frame
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    logger.info("ending: %s", signal.Signals(number).name)
    sys.exit(0)
