"""A small file system of its own for a directory, that a test can fill up: Linux, as root."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]

FILLER = "filler"


class SmallDisk:
    """Mounted at ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self) -> None:
        """Take all the space that is left, to the last byte."""
        with (self.root / FILLER).open("ab", buffering=0) as file:
            for piece_bytes in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(piece_bytes))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Give it back."""
        (self.root / FILLER).unlink()


@contextmanager
def small_disk(root: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Skips the test where nothing may be mounted."""
    root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "minigfs-test", str(root)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
