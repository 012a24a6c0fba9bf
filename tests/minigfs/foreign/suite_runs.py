"""Runs a suite that others wrote in a pytest of its own, against the cluster of a home.

Theirs have markers, plugins and warnings that ours does not admit.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["SUITES", "run_suite"]

SUITES = {"fsspec": 137, "arrow": 36, "pyfilesystem": 79, "zarr": 68}
"""Each suite with the number of its tests that must pass; none may fail."""


def run_suite(name: str, home: Path, *, timeout_s: int = 110) -> None:
    """Fails with the suite's own words unless all of it passes."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--config-file=/dev/null",
            f"--rootdir={Path(__file__).parent}",
            "--import-mode=importlib",
            "--noconftest",
            "-pno:cacheprovider",
            *(("-oasyncio_mode=auto",) if name == "zarr" else ("-pno:asyncio",)),
            "-Wignore",
            "-q",
            "-rs",
            str(Path(__file__).with_name(f"{name}_suite.py")),
        ],
        env={**os.environ, "MINIMR_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= SUITES[name], done.stdout[-3000:]
