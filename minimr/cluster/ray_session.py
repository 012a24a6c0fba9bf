"""One Ray head of our own: started, found again, watched and ended.

``ray stop`` ends every Ray on the machine, so it is never used. All processes of a head, its
actors and their executors share one session (setsid) whose number is written down before Ray's
first instruction runs, and a working directory that nobody else has. What has both is ours, also
after a crash of whoever started it; it is killed through pidfds, so a number that the kernel gave
to somebody else meanwhile is never hit. Ray keeps nothing that we need, so there is nothing to end
gracefully: its SIGTERM handler would wait 30 s for actors that never become idle.

::

    DIR/session       number of the session
    DIR/ports.json    chosen at the first start, kept as long as nobody else takes them
    DIR/start.log     what `ray start` said last
    DIR/ray/          Ray's own files; in /tmp if the path is too long for its sockets
"""

import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from minigfs.cluster.storage import free_loopback_ports
from minigfs.errors import InvalidConfig, StartFailed
from minimr.backends.ray_actors import HEAD_PORTS, head_command, ray_environment

__all__ = ["RayNotStarted", "RaySession"]

# Ray's sockets lie at TEMP/session_<26 characters>_<pid>/sockets/plasma_store; a socket's path has
# at most 107 bytes.
_TEMPORARY_BYTES_MAX = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_KILL_TIMEOUT_MS = 2_000  # for one process to be gone
_KILL_ROUNDS_MAX = 10
_CORE_PROCESSES = ("gcs_server", "raylet")  # without either there is no Ray
# The session is written down by the process that leads it, so there is no moment without a trace.
_WRITE_SESSION = 'umask 077; echo $$ > session && exec "$@" > start.log 2>&1'


class RayNotStarted(StartFailed):
    """Ray gave up; it says why."""


class RaySession:
    """The Ray of one directory; one at a time."""

    def __init__(self, directory: Path, *, token_file: Path, cluster_id: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory.resolve()
        self._token_file = token_file
        self._cluster_id = cluster_id
        self._starting: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._ports['port']}"

    @property
    def stray_files(self) -> Path | None:
        """Where Ray's own files lie if that is not below our directory; its logs among them."""
        if len(os.fsencode(self._directory / "ray")) <= _TEMPORARY_BYTES_MAX:
            return None
        return Path(f"/tmp/minimr-{os.getuid()}-{self._cluster_id[:12]}")

    @property
    def environment(self) -> dict[str, str]:
        return ray_environment(self._token_file)

    def begin(self) -> None:
        """End what is left of an earlier session and start a new one; returns at once."""
        self.end()
        self._ports = self._fixed_ports()
        temporary = self._fresh_temporary()
        self._starting = subprocess.Popen(
            [
                *("/bin/sh", "-c", _WRITE_SESSION, "ray-session"),
                *head_command(ports=self._ports, temporary=temporary),
            ],
            cwd=self._directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def await_begun(self) -> None:
        """Wait until Ray is up. `RayNotStarted` says why it is not."""
        assert self._starting is not None
        if self._starting.wait() != 0:
            text = (self._directory / "start.log").read_text(errors="replace").strip()
            reason = text.splitlines()[-1] if text else "it said nothing"
            log = self._directory / "start.log"
            raise RayNotStarted(f"Ray did not start: {reason} (log: {log})")

    def await_death(self) -> None:
        """Wait until one of the processes that make up a Ray has ended."""
        with self._watched(_CORE_PROCESSES) as found:
            if {name for name, _ in found} != set(_CORE_PROCESSES):
                return
            poll = select.poll()
            for _, descriptor in found:
                poll.register(descriptor, select.POLLIN)
            poll.poll()

    def end(self) -> None:
        """Kill every process of the session, the executors of its actors too."""
        # The raylet could start another actor while we kill one: look again until none is left.
        for _ in range(_KILL_ROUNDS_MAX):
            with self._watched(None) as found:
                if not found:
                    return
                for _name, descriptor in found:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                for _name, descriptor in found:
                    poll = select.poll()
                    poll.register(descriptor, select.POLLIN)
                    poll.poll(_KILL_TIMEOUT_MS)
        raise StartFailed(f"processes of Ray in {self._directory} cannot be killed: see `ps`")

    @contextmanager
    def _watched(self, names: tuple[str, ...] | None) -> Iterator[list[tuple[str, int]]]:
        """Name and pidfd of the session's live processes (with one of these names)."""
        with ExitStack() as stack:
            found = []
            for pid in self._members():
                with suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    stack.callback(os.close, descriptor)
                    # Only now is the number surely the process that the descriptor holds.
                    if self._is_member(pid):
                        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
                        if names is None or name in names:
                            found.append((name, descriptor))
            yield found

    def _members(self) -> list[int]:
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in pids if self._is_member(pid)]

    def _is_member(self, pid: int) -> bool:
        """Whether a live process has our session and our directory; zombies have no directory."""
        session = self._session()
        try:
            return (
                os.getsid(pid) == session and Path(f"/proc/{pid}/cwd").readlink() == self._directory
            )
        except OSError:  # it ended, or belongs to another user
            return False

    def _session(self) -> int | None:
        try:
            return int((self._directory / "session").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):  # never started, or killed while writing
            return None

    def _fixed_ports(self) -> dict[str, int]:
        """The ports used before; new ones if it is the first time or one of them is taken."""
        file = self._directory / "ports.json"
        if file.exists():
            ports = msgspec.json.decode(file.read_bytes(), type=dict[str, int])
            if set(ports) == set(HEAD_PORTS) and all(map(_is_free, ports.values())):
                return ports
        ports = dict(zip(HEAD_PORTS, free_loopback_ports(len(HEAD_PORTS)), strict=True))
        file.write_bytes(msgspec.json.encode(ports))
        return ports

    def _fresh_temporary(self) -> Path:
        """An empty directory for Ray's own files, with a path short enough for its sockets."""
        temporary = self.stray_files or self._directory / "ray"
        if temporary.exists():
            if temporary.is_symlink() or temporary.stat().st_uid != os.getuid():
                raise InvalidConfig(f"{temporary} belongs to somebody else: remove it")
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700, exist_ok=True)
        return temporary


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
