"""MooseFS beside us: its servers and its FUSE mount in scratch directories, for a while.

One master, three chunkservers and ``mfsmount`` of Debian's packages with their defaults, but for
ports, directories, the user, niceness, the reconnection delay and the retention of the trash. Its
master refuses addresses of loopback, so all of it runs in a network namespace whose loopback has
another address: nothing leaves the machine. That and the mount take root.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from minigfs.errors import StartFailed, UsageError

__all__ = ["MooseFs", "check_moosefs", "scratch_moosefs"]

CHUNKSERVER_COUNT = 3
_PROGRAMS = (
    *("mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal", "mfssettrashtime"),
    *("unshare", "nsenter", "ip", "umount"),
)
_ADDRESS = "10.99.99.1"  # of the namespace's own loopback, so any will do
_START_TIMEOUT_S = 30.0
_LOOK_S = 0.1
_STOP_TIMEOUT_S = 10.0
_LOG = "servers.log"
_EMPTY_METADATA = b"MFSM NEW"


class MooseFs:
    """A running one, mounted at ``mount``."""

    def __init__(self, home: Path, inside: list[str]) -> None:
        """``inside`` goes before a command that speaks to the master by itself."""
        self.mount = home / "mount"
        self._home = home
        self._inside = inside

    def directory(self, name: str, goal: int) -> Path:
        """A new directory whose files get so many replicas, and are not kept when removed."""
        made = self.mount / name
        made.mkdir()
        for tool, value in (("mfssetgoal", str(goal)), ("mfssettrashtime", "0")):
            command = [*self._inside, *_command(tool, value, str(made))]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=30)
        return made

    def chunk_files(self) -> Iterator[Path]:
        """The files that its chunkservers keep chunks in."""
        for number in range(CHUNKSERVER_COUNT):
            yield from self._home.glob(f"disk-{number}/**/*.mfs")


def check_moosefs() -> None:
    """`UsageError` if it cannot run here."""
    missing = [name for name in _PROGRAMS if _program(name) is None]
    if missing:
        raise UsageError(
            f"MooseFS cannot run here ({', '.join(missing)} not found): `apt install "
            "moosefs-master moosefs-chunkserver moosefs-client iproute2`, or leave --peers out"
        )
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        raise UsageError("MooseFS is mounted by FUSE, as root: leave --peers out")


def _program(name: str) -> str | None:
    """Servers are not in everybody's path."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _command(name: str, *arguments: str) -> list[str]:
    program = _program(name)
    assert program is not None, "check_moosefs was asked before"
    return [program, *arguments]


@contextmanager
def scratch_moosefs(directory: Path | None) -> Iterator[MooseFs]:
    """Servers with their files below ``directory`` (default: the system's for temporaries)."""
    check_moosefs()
    with (
        tempfile.TemporaryDirectory(prefix="moosefs-bench-", dir=directory) as home,
        ExitStack() as running,
    ):
        inside = running.enter_context(_network())
        moosefs = MooseFs(Path(home), inside)
        running.enter_context(_process([*inside, *_master(Path(home))], Path(home)))
        _await(lambda: _is_initialised(Path(home)), "its master does not start", Path(home))
        chunkservers = [_chunkserver(Path(home), n) for n in range(CHUNKSERVER_COUNT)]
        for command in chunkservers:
            running.enter_context(_process([*inside, *command], Path(home)))
        running.enter_context(_mounted(inside, moosefs.mount, Path(home)))
        _await_servers(moosefs)
        yield moosefs


@contextmanager
def _network() -> Iterator[list[str]]:
    """The words before a command that put it into a network of its own."""
    script = f"ip link set lo up && ip addr add {_ADDRESS}/32 dev lo && echo ready && exec cat"
    holder = subprocess.Popen(
        _command("unshare", "--net", "sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            raise UsageError("no network namespace can be made here: leave --peers out")
        yield _command("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
    finally:
        holder.communicate()  # its end of input is its end


@contextmanager
def _process(command: list[str], home: Path) -> Iterator[None]:
    with (home / _LOG).open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
        process.kill()
        process.wait()


def _master(home: Path) -> list[str]:
    data = home / "master"
    data.mkdir()
    (data / "metadata.mfs").write_bytes(_EMPTY_METADATA)
    (data / "exports").write_text("* / rw,alldirs,maproot=0\n")
    (data / "topology").write_text("")
    hosts = "".join(
        f"{service}_LISTEN_HOST = {_ADDRESS}\n" for service in ("MATOML", "MATOCS", "MATOCL")
    )
    return _server(
        "mfsmaster",
        data,
        f"EXPORTS_FILENAME = {data}/exports\nTOPOLOGY_FILENAME = {data}/topology\n{hosts}",
    )


def _chunkserver(home: Path, number: int) -> list[str]:
    data, disk = home / f"chunkserver-{number}", home / f"disk-{number}"
    data.mkdir()
    disk.mkdir()
    (data / "disks").write_text(f"{disk}\n")
    return _server(
        "mfschunkserver",
        data,
        f"MASTER_HOST = {_ADDRESS}\nMASTER_RECONNECTION_DELAY = 1\n"
        f"CSSERV_LISTEN_HOST = {_ADDRESS}\nCSSERV_LISTEN_PORT = {9500 + number}\n"
        f"HDD_CONF_FILENAME = {data}/disks\n",
    )


def _server(program: str, data: Path, settings: str) -> list[str]:
    config = data / "config"
    config.write_text(
        f"WORKING_USER = root\nWORKING_GROUP = root\nNICE_LEVEL = 0\nDATA_PATH = {data}\n{settings}"
    )
    return _command(program, "-f", "-c", str(config), "start")


@contextmanager
def _mounted(inside: list[str], mount: Path, home: Path) -> Iterator[None]:
    mount.mkdir()
    client = _command("mfsmount", "-f", "-H", _ADDRESS, str(mount))
    with _process([*inside, *client], home):
        try:
            _await(mount.is_mount, "mfsmount has not mounted", home)
            yield
        finally:
            subprocess.run(_command("umount", "--lazy", str(mount)), check=False, timeout=30)


def _await_servers(moosefs: MooseFs) -> None:
    """A file on all chunkservers can be written once all are there."""

    probe = moosefs.directory("probe", CHUNKSERVER_COUNT)

    def tried() -> bool:
        (probe / "f").write_bytes(b"x")  # waits for the first
        return sum(1 for _ in moosefs.chunk_files()) >= CHUNKSERVER_COUNT

    _await(tried, "its chunkservers do not come", moosefs.mount.parent)


def _is_initialised(home: Path) -> bool:
    """It listens in a network where nobody outside can try whether it does."""
    return b"daemon initialized properly" in (home / _LOG).read_bytes()


def _await(is_done: Callable[[], bool], complaint: str, home: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while not is_done():
        if time.monotonic() > deadline_s:
            said = (home / _LOG).read_text(errors="replace")[-2_000:]
            raise StartFailed(f"MooseFS: {complaint} in {_START_TIMEOUT_S:g} s:\n{said}")
        time.sleep(_LOOK_S)  # only asking tells
