"""How the process that keeps the workers is set up."""

from pathlib import Path

import pytest

from minigfs.errors import InvalidConfig
from minimr.cluster.workers import WorkersOptions, check_foreign_ray


def test_hosts_racks_and_the_bound_of_memory_reach_every_worker() -> None:
    options = WorkersOptions(
        directory=Path("/d"), listen="127.0.0.1:0", masters=("127.0.0.1:1",),
        token_file=Path("/t"), cluster_id="c", worker_count=3, hosts=("a", "b"), racks=("r", "s"),
        memory_bytes=1 << 20,
    )  # fmt: skip
    specs = options.specs()
    assert [(spec.host, spec.rack) for spec in specs] == [("a", "r"), ("b", "s"), ("a", "r")]
    assert {spec.memory_bytes for spec in specs} == {1 << 20}


def test_a_ray_that_lets_everybody_in_is_refused_unless_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(InvalidConfig, match="--insecure"):
        check_foreign_ray("10.0.0.1:6379", insecure=False)
    check_foreign_ray("10.0.0.1:6379", insecure=True)
    check_foreign_ray("", insecure=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_foreign_ray("10.0.0.1:6379", insecure=False)
