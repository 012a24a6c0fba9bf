"""Services are led in one by one, and out at once, whatever happens meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from minigfs.errors import InvalidConfig, NoSpace, NotLeader
from minigfs.master.leadership import Leadership


class Host:
    """Whoever is told about leadership, without a group."""

    def watch_leadership(self, watcher: Callable[[int | None], None]) -> None:
        self.tell = watcher


class Service:
    def __init__(self, name: str, diary: list[str]) -> None:
        self.name = name
        self.diary = diary
        self.may_lead = asyncio.Event()
        self.may_lead.set()
        self.errors: list[Exception] = []

    async def lead(self, term: int) -> None:
        self.diary.append(f"{self.name} begins {term}")
        await self.may_lead.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.diary.append(f"{self.name} leads {term}")

    def follow(self) -> None:
        self.diary.append(f"{self.name} follows")


def led(
    test: Callable[[Host, Leadership, list[str], Service, Service], Awaitable[None]],
) -> None:
    async def main() -> None:
        diary: list[str] = []
        one, two = Service("1", diary), Service("2", diary)
        host = Host()
        leadership = Leadership(host, [one, two])  # type: ignore[arg-type]
        await test(host, leadership, diary, one, two)
        await leadership.stop()

    asyncio.run(main())


def test_services_lead_in_order_and_follow_in_reverse() -> None:
    async def test(host, leadership, diary, one, two) -> None:
        host.tell(7)
        assert not leadership.serving.is_set()
        await leadership.serving.wait()
        host.tell(None)
        assert not leadership.serving.is_set()
        assert diary[2:] == [
            "1 begins 7",
            "1 leads 7",
            "2 begins 7",
            "2 leads 7",
            "2 follows",
            "1 follows",
        ]

    led(test)


def test_leadership_lost_while_a_service_is_led_in_stops_it_there() -> None:
    async def test(host, leadership, diary, one, two) -> None:
        one.may_lead.clear()
        host.tell(7)
        await asyncio.sleep(0)
        host.tell(None)
        one.may_lead.set()
        await asyncio.sleep(0.01)
        assert diary[2:] == ["1 begins 7", "2 follows", "1 follows"]
        host.tell(9)
        await leadership.serving.wait()
        assert diary[-4:] == ["1 begins 9", "1 leads 9", "2 begins 9", "2 leads 9"]

    led(test)


def test_a_new_term_without_a_pause_begins_after_the_old_ones_end() -> None:
    async def test(host, leadership, diary, one, two) -> None:
        one.may_lead.clear()
        host.tell(7)
        await asyncio.sleep(0)
        host.tell(None)
        host.tell(8)
        one.may_lead.set()
        await leadership.serving.wait()
        assert "1 leads 7" not in diary
        assert diary[-4:] == ["1 begins 8", "1 leads 8", "2 begins 8", "2 leads 8"]

    led(test)


@pytest.mark.parametrize("error", [NoSpace("full"), NotLeader("lost")])
def test_what_passes_is_tried_again(error) -> None:
    async def test(host, leadership, diary, one, two) -> None:
        two.errors.append(error)
        host.tell(7)
        await leadership.serving.wait()
        assert diary[2:] == [
            "1 begins 7",
            "1 leads 7",
            "2 begins 7",
            "2 follows",
            "2 begins 7",
            "2 leads 7",
        ]

    led(test)


def test_what_does_not_pass_ends_the_process() -> None:
    async def test(host, leadership, diary, one, two) -> None:
        one.errors.append(InvalidConfig("made with other values"))
        host.tell(7)
        with pytest.raises(InvalidConfig, match="other values"):
            await leadership.wait_failed()
        assert not leadership.serving.is_set()
        assert "2 begins 7" not in diary

    led(test)
