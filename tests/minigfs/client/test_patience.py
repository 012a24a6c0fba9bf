"""A client that keeps trying never begins a try that has no time to succeed."""

from minigfs.client.patience import TRY_MS_MIN, Patience


def test_every_try_has_time_to_find_out_what_is_wrong() -> None:
    """Else the last of many refusals reads as "late", which may mean that something was done."""
    patience = Patience(3 * TRY_MS_MIN)
    left_ms = []
    while patience.pause():
        left_ms.append(patience.remaining_ms)
    assert left_ms
    assert min(left_ms) > TRY_MS_MIN // 2
