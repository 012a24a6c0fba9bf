"""The suites that others wrote for their file systems and stores pass on ours."""

import pytest

from minigfs.cluster import ClusterLayout
from tests.minigfs.foreign.suite_runs import SUITES, run_suite

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", SUITES)
def test_every_test_of_the_suite_passes(cluster: ClusterLayout, name: str) -> None:
    run_suite(name, cluster.home)
