"""The sort benchmark as a user runs it, small."""

import json
import subprocess
import sys


def test_it_sorts_validates_and_tells_rates_and_limits() -> None:
    command = [sys.executable, "-m", "minimr", "bench", "sort", "--size", "2MB", "--json"]
    done = subprocess.run(
        [*command, "--keys", "skewed,constant", "--reducers", "3", "--split-size", "200000B"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    skewed, constant = told["sorts"]
    assert (skewed["keys"], constant["keys"]) == ("skewed", "constant")
    assert constant["duplicate_keys"] == 19_999
    for figures in told["sorts"]:
        assert figures["records"] == 20_000
        assert figures["mb_s"] > 0
        assert figures["phases_ms"]["total"] > 0
    assert all(rate > 0 for rate in told["limits"].values())


def test_a_kind_of_keys_that_is_none_is_refused() -> None:
    command = [sys.executable, "-m", "minimr", "bench", "sort", "--keys", "uniform,odd"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"uniform, skewed, few, constant" in done.stderr
