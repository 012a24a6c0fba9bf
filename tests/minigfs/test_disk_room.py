"""What stays free is a share of a small disk and a few gigabytes of a large one."""

import pytest

from minigfs.disk_room import full_at_bytes, short_at_bytes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("capacity_bytes", "full_bytes", "short_bytes"),
    [
        (0, 0, 0),
        (1_000, 50, 100),
        (20 * GIB, GIB, 2 * GIB),
        (250 * GIB, 4 * GIB, 8 * GIB),
        (20_000 * GIB, 4 * GIB, 8 * GIB),
    ],
)
def test_a_server_is_short_of_space_before_it_is_full(
    capacity_bytes: int, full_bytes: int, short_bytes: int
) -> None:
    assert full_at_bytes(capacity_bytes) == full_bytes
    assert short_at_bytes(capacity_bytes) == short_bytes
