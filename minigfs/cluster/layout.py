"""Where a cluster keeps what on this machine, and the lock that keeps two starts apart."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ClusterLayout", "default_home", "write_atomically"]

_PRIVATE_DIRECTORY = 0o700  # chunks are users' data, and the token lies beside them


def default_home() -> Path:
    """``$MINIMR_HOME``, else ``~/.minimr``."""
    given = os.environ.get("MINIMR_HOME")
    return Path(given).expanduser().absolute() if given else Path.home() / ".minimr"


@dataclass(frozen=True, slots=True)
class ClusterLayout:
    """The paths below a cluster's home; see the package's docstring. Nothing is made by asking."""

    home: Path

    @property
    def state_file(self) -> Path:
        return self.home / "cluster.json"

    @property
    def client_file(self) -> Path:
        return self.home / "client.json"

    @property
    def token_file(self) -> Path:
        return self.home / "token"

    @property
    def lock_file(self) -> Path:
        return self.home / "lock"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def directory(self, name: str) -> Path:
        """A process's own directory; it lives as long as the cluster."""
        return self.home / name

    def make(self) -> None:
        """Make the home and the log directory, readable by their owner only."""
        self.home.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        self.logs.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)

    @contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Be alone in starting and stopping processes; ``waiting`` is called if another is at it.

        Whoever holds the lock has bounded work, so this waits without a deadline. The kernel
        releases the lock of a process that died.
        """
        self.make()
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a small file: readers see the old or the new content, whatever dies when."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
