"""A client finds whoever leads, and a change is made once however often it must be sent."""

import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig
from minigfs.client.masters import MasterCaller
from minigfs.client.sessions import ClientSessions
from minigfs.errors import NoQuorum, OutcomeUnknown, Unreachable
from minigfs.ids import Origin, SessionId
from minigfs.master.messages import MakeDirectory, OpenSession
from minigfs.ports import SystemClock
from minigfs.transport.client import ConnectionPool
from minigfs.transport.group import GroupCaller
from tests.minigfs.client.fake_masters import SECURITY, FakeMasters
from tests.minigfs.client.test_files_e2e import until

NewCaller = Callable[..., MasterCaller]


@pytest.fixture
def masters() -> Iterator[FakeMasters]:
    with FakeMasters() as masters:
        yield masters


@pytest.fixture
def caller(masters: FakeMasters) -> Iterator[NewCaller]:
    pool = ConnectionPool(SECURITY)

    def new(timeout_ms: int = 5_000) -> MasterCaller:
        addresses = tuple(masters.addresses)
        return MasterCaller(
            ClientConfig(masters=addresses, token=SECURITY.token, timeout_ms=timeout_ms), pool
        )

    yield new
    pool.close()


def make(client: MasterCaller, path: str) -> None:
    client.change(MakeDirectory(path=path))


def client_of_a_stopped_leader(masters: FakeMasters, caller: NewCaller) -> MasterCaller:
    """It has made "/a" there."""
    client = caller()
    make(client, "/a")
    masters.silent.add(0)
    return client


def seconds(work: object, *arguments: object) -> float:
    began = time.monotonic()
    assert callable(work)
    work(*arguments)
    return time.monotonic() - began


def test_the_hint_of_a_follower_is_followed_and_remembered(
    masters: FakeMasters, caller: NewCaller
) -> None:
    masters.elect(2)
    client = caller()
    make(client, "/a")
    make(client, "/b")
    assert masters.asked == [0, 2, 2, 2]  # a session, then the changes
    assert masters.made == ["/a", "/b"]


def test_without_a_hint_the_others_are_asked_in_turn(
    masters: FakeMasters, caller: NewCaller
) -> None:
    masters.hinting = False
    masters.elect(2)
    make(caller(), "/a")
    assert masters.asked == [0, 1, 2, 2]


def test_a_dead_leader_costs_no_more_than_the_election(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller()
    make(client, "/a")
    masters.elect(None)
    masters.kill(0)
    masters.elect_in(1, 0.5)
    assert 0.4 < seconds(make, client, "/b") < 1.0
    assert masters.made == ["/a", "/b"]


def test_a_stopped_leader_costs_less_than_a_second_and_a_half(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = client_of_a_stopped_leader(masters, caller)
    masters.elect(1)
    assert seconds(make, client, "/b") < 1.5
    assert seconds(make, client, "/c") < 0.5, "the stopped one is asked first no more"


def test_a_stopped_leader_and_a_long_election_cost_no_more_than_the_election(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = client_of_a_stopped_leader(masters, caller)
    masters.elect(None)
    masters.elect_in(1, 1.75)
    assert 1.7 < seconds(make, client, "/b") < 2.5


def test_who_asks_around_once_in_a_while_does_not_wait_for_the_stopped_leader_each_time() -> None:
    with FakeMasters() as masters:
        pool = ConnectionPool(SECURITY)
        group = GroupCaller(pool, masters.addresses)

        def ask() -> None:
            with pytest.raises(NoQuorum):
                group.call(OpenSession(), timeout_ms=1_200, once=True)

        masters.silent.add(0)
        masters.elect(None)
        assert seconds(ask) >= 1.0
        assert seconds(ask) < 0.9
        masters.silent.clear()
        masters.elect(0)
        assert group.call(OpenSession(), timeout_ms=1_200, once=True).session_id
        pool.close()


def test_a_leader_that_is_merely_slow_gets_its_answer_through(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller(timeout_ms=8_000)
    make(client, "/a")
    masters.think_s = 1.3
    make(client, "/b")
    assert masters.made == ["/a", "/b"]


def test_a_change_whose_reply_was_lost_is_made_once(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller()
    make(client, "/a")
    masters.losing_replies = 3
    make(client, "/b")
    assert masters.made == ["/a", "/b"]
    assert masters.losing_replies == 0


def test_a_session_the_masters_forgot_is_replaced_without_a_word(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller()
    make(client, "/a")
    masters.forget_sessions()
    make(client, "/b")
    assert masters.made == ["/a", "/b"]


def test_a_session_forgotten_between_two_tries_leaves_the_outcome_unknown(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = client_of_a_stopped_leader(masters, caller)
    masters.elect(1)
    masters.forget_sessions()
    with pytest.raises(OutcomeUnknown, match="session ended"):
        make(client, "/b")
    make(client, "/c")
    assert masters.made == ["/a", "/c"]


def test_without_a_leader_the_error_names_the_masters_in_time(
    masters: FakeMasters, caller: NewCaller
) -> None:
    masters.elect(None)
    client = caller(timeout_ms=600)
    began = time.monotonic()
    with pytest.raises(NoQuorum) as caught:
        make(client, "/a")
    assert time.monotonic() - began < 1.0
    assert all(address in str(caught.value) for address in masters.addresses)
    assert "\n" not in str(caught.value)
    masters.elect(1)
    make(client, "/a")


def test_with_two_of_three_dead_there_is_no_quorum_and_with_all_nobody(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller(timeout_ms=500)
    masters.elect(None)
    masters.kill(0)
    masters.kill(1)
    with pytest.raises(NoQuorum):
        make(client, "/a")
    masters.kill(2)
    with pytest.raises(Unreachable, match="no master can be reached"):
        make(client, "/a")


def test_a_change_that_was_sent_and_never_answered_has_an_unknown_outcome(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller(timeout_ms=600)
    make(client, "/a")
    masters.silent.update((0, 1, 2))
    with pytest.raises(OutcomeUnknown, match="may have been"):
        make(client, "/b")


def test_threads_share_a_session_and_none_of_their_changes_is_lost_or_doubled(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller()
    masters.losing_replies = 40

    def work(name: str) -> None:
        for number in range(40):
            make(client, f"/{name}-{number}")

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for number in (1, 2, 0):
        time.sleep(0.05)
        masters.elect(number)
    for thread in threads:
        thread.join()
    assert sorted(masters.made) == sorted(f"/t{i}-{n}" for i in range(8) for n in range(40))


def test_a_forked_child_opens_a_session_of_its_own(masters: FakeMasters, caller: NewCaller) -> None:
    client = caller()
    make(client, "/parent-0")

    def work() -> None:
        for number in range(5):
            make(client, f"/child-{number}")

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    for number in range(1, 5):
        make(client, f"/parent-{number}")
    child.join()
    assert child.exitcode == 0
    assert sorted(masters.made) == sorted(
        f"/{who}-{n}" for who in ("child", "parent") for n in range(5)
    )
    assert len(masters.sessions) == 2


def test_a_client_is_pickled_as_what_it_was_made_from(masters: FakeMasters) -> None:
    config = ClientConfig(masters=tuple(masters.addresses), token=SECURITY.token)
    copy = pickle.loads(pickle.dumps(MinigfsClient(config)))
    copy.make_directory("/from-a-copy")
    assert masters.made == ["/from-a-copy"]


def test_a_change_that_hangs_never_fills_the_masters_memory_of_its_session() -> None:
    opened: list[SessionId] = []

    def open_session() -> SessionId:
        opened.append(SessionId(len(opened) + 1))
        return opened[-1]

    sessions = ClientSessions(open_session)
    seen: list[Origin] = []
    with sessions.origin() as hanging:
        for _ in range(1_000):
            with sessions.origin() as origin:
                seen.append(origin)
    assert len(opened) > 1
    of_first = [origin for origin in seen if origin.session_id == hanging.session_id]
    assert max(origin.sequence for origin in of_first) - hanging.sequence < 1_024
    assert {origin.answered_below for origin in of_first} == {hanging.sequence}
    assert len({(o.session_id, o.sequence) for o in seen}) == len(seen)


def test_masters_that_came_later_are_found_when_those_known_at_first_are_gone() -> None:
    with FakeMasters() as masters:
        pool = ConnectionPool(SECURITY)
        group = GroupCaller(pool, masters.addresses[:1])
        group.call(OpenSession(), timeout_ms=1_000)
        group.know(masters.addresses)
        masters.kill(0)
        masters.elect(2)
        assert group.call(OpenSession(), timeout_ms=1_000).session_id
        assert group.leader == masters.addresses[2]
        pool.close()


def test_a_request_that_was_begun_is_answered_by_whoever_leads(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller()
    make(client, "/a")
    masters.asked.clear()
    with client.begin(OpenSession()) as begun:
        begun.answer()
    assert masters.asked == [0], "it is asked once"
    masters.elect(2)
    masters.asked.clear()
    with client.begin(OpenSession()) as begun:
        begun.answer()
    assert masters.asked[-1] == 2
    assert len(masters.asked) <= 3


def test_a_stopped_leader_costs_a_request_that_was_begun_no_more_than_a_call(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = client_of_a_stopped_leader(masters, caller)
    masters.elect(1)
    with client.begin(OpenSession()) as begun:
        assert seconds(begun.answer) < 1.8
    assert seconds(make, client, "/b") < 0.5


def test_a_request_that_was_begun_with_nobody_there_fails_as_a_call_does() -> None:
    pool = ConnectionPool(SECURITY)
    group = GroupCaller(pool, ["127.0.0.1:1"])
    with pytest.raises(Unreachable):
        group.begin(OpenSession(), timeout_ms=300).answer()
    pool.close()


class LateClock(SystemClock):
    late_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.late_ms


def test_the_time_of_a_request_that_was_begun_runs_while_its_caller_does_other_things() -> None:
    pool, clock = ConnectionPool(SECURITY), LateClock()
    begun = GroupCaller(pool, ["127.0.0.1:1"], clock=clock).begin(OpenSession(), timeout_ms=10_000)
    clock.late_ms = 10_000
    began = time.monotonic()
    with pytest.raises(Unreachable):
        begun.answer()
    assert time.monotonic() - began < 2
    pool.close()


def test_a_request_that_was_begun_and_is_given_up_keeps_no_connection(
    masters: FakeMasters, caller: NewCaller
) -> None:
    client = caller()
    make(client, "/a")
    masters.silent.add(0)
    client.begin(OpenSession()).close()
    until(lambda: masters.connection_count(0) == 0)
