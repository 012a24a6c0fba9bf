"""The second server is asked late enough to be rare and early enough to help."""

from hypothesis import given
from hypothesis import strategies as st

from minigfs.client.hedging import HedgePolicy


def after(waits_ms: list[int]) -> HedgePolicy:
    policy = HedgePolicy()
    for wait_ms in waits_ms:
        policy.answered(wait_ms)
    return policy


def test_a_new_client_is_patient_and_an_experienced_one_knows_what_is_slow() -> None:
    assert HedgePolicy().delay_ms() == 500
    assert after([1] * 64).delay_ms() == 20
    assert after([30] * 64).delay_ms() == 90
    assert after([1] * 58 + [40] * 6).delay_ms() == 20
    assert after([1] * 50 + [40] * 14).delay_ms() == 120
    assert after([4_000] * 64).delay_ms() == 500


def test_old_waits_are_forgotten() -> None:
    assert after([400] * 64 + [1] * 64).delay_ms() == 20


def test_when_everybody_is_slow_nobody_is_asked_twice_for_long() -> None:
    policy = after([1] * 64)
    hedges = 0
    for _ in range(200):
        if policy.delay_ms() is not None:
            policy.hedged()
            hedges += 1
        policy.answered(1_000)
    assert 5 <= hedges <= 5 + 200 // 10


@given(st.lists(st.integers(0, 100_000), max_size=200))
def test_the_delay_stays_in_its_bounds(waits_ms: list[int]) -> None:
    delay_ms = after(waits_ms).delay_ms()
    assert delay_ms is not None
    assert 20 <= delay_ms <= 500
