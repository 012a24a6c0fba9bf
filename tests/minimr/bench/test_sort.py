"""The sort benchmark as a user runs it, small."""

import json
import subprocess
import sys


def test_it_sorts_validates_and_tells_rates_and_limits() -> None:
    command = [sys.executable, "-m", "minimr", "bench", "sort", "--size", "2MB", "--skew", "--json"]
    done = subprocess.run(
        [*command, "--reducers", "3", "--split-size", "200000B"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    figures = json.loads(done.stdout)
    assert figures["records"] == 20_000
    assert figures["skew"] is True
    assert figures["mb_s"] > 0
    assert figures["phases_ms"]["total"] > 0
    assert all(rate > 0 for rate in figures["limits"].values())
