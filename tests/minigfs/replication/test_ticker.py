"""Time in ticks: as many as passed, and few after a pause."""

import asyncio
import time

from minigfs.replication.pulse import Pulse
from minigfs.replication.ticker import Ticker


def test_ticks_keep_time_though_each_timer_is_a_little_late() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ticks = 0

        def tick(count: int) -> None:
            nonlocal ticks
            ticks += count
            time.sleep(0.002)  # the next timer is late

        began_s = loop.time()
        ticker = Ticker(tick, tick_ms=10, catch_up_max=2)
        await asyncio.sleep(0.3)
        ticker.stop()
        passed = int((loop.time() - began_s) / 0.01)
        assert ticks <= passed
        assert ticks >= passed // 2, "a busy machine may cost some, not most"

    asyncio.run(main())


def test_a_pause_is_not_made_up_for() -> None:
    async def main() -> None:
        given: list[int] = []
        ticker = Ticker(given.append, tick_ms=10, catch_up_max=2)
        time.sleep(0.5)  # the loop stands still, as if the process had been stopped
        await asyncio.sleep(0.005)
        assert given == [2]
        ticker.stop()

    asyncio.run(main())


def test_waiting_for_a_condition_ends_with_a_beat_or_with_its_time() -> None:
    async def main() -> None:
        pulse = Pulse()
        things: list[int] = []
        waiting = asyncio.create_task(pulse.until(lambda: bool(things), timeout_ms=None))
        given_up = asyncio.create_task(pulse.until(lambda: bool(things), timeout_ms=None))
        await asyncio.sleep(0)
        pulse.beat()
        await asyncio.sleep(0)
        given_up.cancel()
        things.append(1)
        pulse.beat()
        assert await waiting is True
        assert await pulse.until(lambda: False, timeout_ms=1) is False

    asyncio.run(main())
