"""Arrow's own suite for file systems passes on ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minigfs.cluster import ClusterLayout

pytestmark = pytest.mark.e2e


def test_the_suite_that_ships_with_arrow_passes(cluster: ClusterLayout, tmp_path: Path) -> None:
    config = tmp_path / "pytest.ini"
    config.write_text("[pytest]\n")
    suite = Path(__file__).with_name("arrow_suite.py")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            f"--config-file={config}",
            "--import-mode=importlib",
            "--noconftest",
            "-pno:cacheprovider",
            "-Wignore",
            "-q",
            str(suite),
        ],
        env={**os.environ, "MINIMR_HOME": str(cluster.home)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 25
