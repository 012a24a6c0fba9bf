"""Calls to whichever server leads a group: the masters, seen from outside.

Theory of operation
-------------------
One server leads; the others refuse with ``NotLeader`` and, if they know it, name the leader. So a
call asks the server that answered last, follows a hint at once, else goes round, and after a whole
round without an answer pauses for a moment: an election is under way. This goes on until the
call's deadline.

A server may also be silent: stopped, cut off, or busy with this very request. Its first try gets
``TRY_MS`` on top of what the request asks it to wait; then the others are asked, who know by then
if somebody else leads. If for ``SETTLE_MS`` nobody does, the silent one is asked again. That try is
short, because somebody else may be elected meanwhile; each further one has twice the time of the
one before, so that a leader which is merely slow gets its answer through. That a server was silent
is remembered until it answers: the next call, too, asks it last, and not for long. If that was in
vain the call after it waits twice as long, up to ``TRY_MS``: some calls ask only once.

Every request must bear repetition: a try that broke or was late may have been executed, and the
next try is the same request (a change carries its origin, see ``minigfs.ids.Origin``).
"""

import time
from collections import deque
from collections.abc import Sequence

from minigfs.errors import (
    ClusterError,
    DeadlineExceeded,
    MemberRemoved,
    NoQuorum,
    NotLeader,
    OutcomeUnknown,
    SessionUnknown,
    Unreachable,
)
from minigfs.ports import Clock, SystemClock
from minigfs.transport.address import Address
from minigfs.transport.begun_call import LAST_TRY_MS, BegunCall
from minigfs.transport.client import ConnectionPool, Stream
from minigfs.transport.deadline import Deadline
from minigfs.transport.messages import ReplyT, Request

__all__ = ["GroupCaller"]

TRY_MS = 1_000  # a healthy leader answers in milliseconds; a stopped one must not cost much more
SETTLE_MS = 500  # what an election takes, once the others miss their leader
SILENT_TRY_MS = 250  # of a server that was silent before, while others may come to lead
FIRST_PAUSE_MS = 10
PAUSE_MS_MAX = 160

# What a try may end with and the call go on; any other error is the answer.
TROUBLES = (
    NotLeader,
    OutcomeUnknown,
    DeadlineExceeded,
    Unreachable,
    NoQuorum,
    MemberRemoved,
    SessionUnknown,
)


class GroupCaller:
    """Thread-safe and fork-safe: what it remembers is replaced in single steps."""

    def __init__(
        self,
        pool: ConnectionPool,
        addresses: Sequence[Address],
        *,
        clock: Clock | None = None,
    ) -> None:
        assert addresses
        self._pool = pool
        self._given = tuple(addresses)
        self._addresses = self._given
        self._clock: Clock = clock or SystemClock()
        self._leader = self._addresses[0]
        self._silent: dict[Address, int] = {}  # late last; what the next call gives them, in ms

    @property
    def leader(self) -> Address:
        """The server that answered last, or was named as the leader."""
        return self._leader

    def know(self, addresses: Sequence[Address]) -> None:
        """The group has told who is in it now; those given at first stay, as a last resort."""
        self._addresses = tuple(dict.fromkeys((*addresses, *self._given)))

    def call(
        self,
        request: Request[ReplyT],
        *,
        timeout_ms: int,
        answer_ms: int = 0,
        is_change: bool = False,
        once: bool = False,
    ) -> ReplyT:
        """The leader's answer, or the error it answered with.

        Parameters
        ----------
        request
            May be executed again, or refuses to be.
        timeout_ms : int
            After this the call gives up: with ``Unreachable`` if nobody listens, ``NoQuorum`` if
            nobody leads, ``DeadlineExceeded`` if the leader is silent.
        answer_ms : int
            How long the leader may take on purpose: of a long poll.
        is_change : bool
            Giving up after a try that may have been executed is ``OutcomeUnknown``.
        once : bool
            Ask around once; wait for no election.
        """
        leader, began_ms = self._leader, self._clock.monotonic_ms()
        try:  # almost always this is all
            reply = self._pool.call(leader, request, timeout_ms=min(answer_ms + TRY_MS, timeout_ms))
        except TROUBLES as error:
            search = self._search_after(leader, error, timeout_ms, began_ms)
        else:
            if self._silent:
                self._silent.pop(leader, None)
            return reply
        return self._ask_around(search, request, answer_ms, is_change=is_change, once=once)

    def begin(self, request: Request[ReplyT], *, timeout_ms: int) -> BegunCall[ReplyT]:
        """Send a request that changes nothing to whoever answered last; who waits for the answer
        asks around, as ``call`` does, if that one has none."""
        leader, began_ms = self._leader, self._clock.monotonic_ms()
        deadline = Deadline(self._clock, timeout_ms)
        begun: Stream | ClusterError
        try:
            begun = self._pool.open_stream(leader, request, timeout_ms=min(TRY_MS, timeout_ms))
        except TROUBLES as error:
            begun = error

        def ask_around(error: ClusterError) -> ReplyT:
            search = self._search_after(leader, error, timeout_ms, began_ms)
            return self._ask_around(search, request)

        return BegunCall(request, begun, deadline, try_ms=TRY_MS, ask_around=ask_around)

    def _search_after(
        self, leader: Address, error: ClusterError, timeout_ms: int, began_ms: int
    ) -> "_Search":
        """A search that begins with what became of the leader's try; raises what is no trouble."""
        if not isinstance(error, TROUBLES):
            raise error
        search = _Search(self._addresses, leader, self._silent, timeout_ms, began_ms, self._clock)
        self._learn(search, leader, error)
        return search

    def _ask_around(
        self,
        search: "_Search",
        request: Request[ReplyT],
        answer_ms: int = 0,
        *,
        is_change: bool = False,
        once: bool = False,
    ) -> ReplyT:
        while (address := search.take() if once else self._next(search)) is not None:
            try:
                reply = self._pool.call(
                    address, request, timeout_ms=search.try_ms(address, answer_ms)
                )
            except TROUBLES as error:
                self._learn(search, address, error)
            else:
                self._leader = address
                self._silent.pop(address, None)
                return reply
        raise search.verdict(is_change=is_change)

    def _learn(self, search: "_Search", address: Address, error: ClusterError) -> None:
        search.learn(address, error)
        if self._leader == address:
            self._leader = search.first

    def _next(self, search: "_Search") -> Address | None:
        """Who to ask now; waits while nobody is worth asking, None when the time is up."""
        while (address := search.take()) is None:
            pause_ms = search.pause_ms()
            if pause_ms is None:
                return None
            # Nothing tells a client that a leader was elected: asking again is the event.
            time.sleep(pause_ms / 1000)
        return address


class _Search:
    """One call's way through the group."""

    def __init__(
        self,
        addresses: Sequence[Address],
        leader: Address,
        silent: dict[Address, int],
        timeout_ms: int,
        began_ms: int,
        clock: Clock,
    ) -> None:
        """It begins when ``leader`` has been asked. ``silent`` is shared by all searches."""
        self._clock = clock
        self._timeout_ms = timeout_ms
        self._deadline_ms = began_ms + timeout_ms
        self._addresses = list(dict.fromkeys((leader, *addresses)))
        self._silent = silent
        self._asked = {leader}  # in this round
        self._pause_ms = FIRST_PAUSE_MS
        self._late: dict[Address, int] = {}  # how often each kept this call waiting
        self._not_before_ms: dict[Address, int] = {}
        self._trouble: dict[Address, ClusterError] = {}  # the last of each
        self._round = self._new_round()
        self.may_have_run = False

    @property
    def first(self) -> Address:
        """Who would be asked next, for other calls to begin with: nobody who was silent."""
        known = (*self._round, *self._addresses)
        return next((one for one in known if one not in self._silent), self._addresses[0])

    def take(self) -> Address | None:
        """The next of this round; None at its end, or when the time is up."""
        now_ms = self._clock.monotonic_ms()
        if now_ms >= self._deadline_ms and self._trouble:
            return None
        while self._round:
            address = self._round.popleft()
            if address not in self._asked and now_ms >= self._not_before_ms.get(address, 0):
                self._asked.add(address)
                return address
        return None

    def pause_ms(self) -> int | None:
        """How long to wait for the next round, which begins with that; None: give up."""
        now_ms = self._clock.monotonic_ms()
        # The last try keeps some time: cut short, it would report lateness instead of why.
        left_ms = self._deadline_ms - LAST_TRY_MS - now_ms
        if left_ms <= 0:
            return None
        self._round = self._new_round()
        self._asked.clear()
        pause_ms = min(self._pause_ms, left_ms)
        self._pause_ms = min(2 * self._pause_ms, PAUSE_MS_MAX)
        return pause_ms

    def _new_round(self) -> deque[Address]:
        """Everybody, those that were silent last."""
        return deque(sorted(self._addresses, key=lambda one: one in self._silent))

    def try_ms(self, address: Address, answer_ms: int) -> int:
        others_may_lead = len(self._addresses) > 1
        first_ms = self._silent.get(address, TRY_MS) if others_may_lead else TRY_MS
        patience_ms = answer_ms + (first_ms << max(0, self._late.get(address, 0) - 1))
        return max(1, min(patience_ms, self._deadline_ms - self._clock.monotonic_ms()))

    def learn(self, address: Address, error: ClusterError) -> None:
        """What became of a try; raises what ends the call."""
        if isinstance(error, SessionUnknown):
            if not self.may_have_run:
                raise error
            raise OutcomeUnknown(
                "the change may have been made before its session ended: look, then ask again"
            ) from error
        self._trouble[address] = error
        self.may_have_run |= isinstance(error, OutcomeUnknown | DeadlineExceeded)
        if isinstance(error, DeadlineExceeded):
            self._was_silent(address)
        else:
            self._silent.pop(address, None)
        if isinstance(error, NotLeader):
            self._redirected(error)

    def _redirected(self, error: NotLeader) -> None:
        leader = error.hint
        if not leader:
            return
        if leader not in self._addresses:  # a member that has joined since we were told of them
            self._addresses.append(leader)
        if leader not in self._silent:  # else the follower has not noticed yet: it has its turn
            self._round.appendleft(leader)

    def _was_silent(self, address: Address) -> None:
        if address not in self._late:
            given_ms = self._silent.get(address, TRY_MS)
            self._silent[address] = SILENT_TRY_MS if given_ms >= TRY_MS else 2 * given_ms
        self._late[address] = self._late.get(address, 0) + 1
        self._not_before_ms[address] = self._clock.monotonic_ms() + SETTLE_MS

    def verdict(self, *, is_change: bool) -> ClusterError:
        """Why nobody answered, in one line that names who was asked."""
        tried = ", ".join(self._addresses)
        seconds = f"{self._timeout_ms / 1000:g} s"
        troubles = list(self._trouble.values())
        if is_change and self.may_have_run:
            return OutcomeUnknown(
                f"no answer in {seconds} from the masters ({tried}): the change may have been "
                "made, or may still be; look before asking again"
            )
        if len(troubles) == 1 and not isinstance(troubles[0], NotLeader):
            return troubles[0]
        if all(isinstance(trouble, Unreachable) for trouble in troubles):
            return Unreachable(
                f"no master can be reached in {seconds} (tried {tried}): are they running? "
                "`minimr up` (or `minigfs up`) starts those of this machine"
            )
        return NoQuorum(
            f"no master leads after {seconds} (tried {tried}): a majority of them must run and "
            f"reach each other; {_worst(troubles).message}"
        )


def _worst(troubles: Sequence[ClusterError]) -> ClusterError:
    """The trouble that says most: a refusal to connect before a missing leader."""
    return min(troubles, key=lambda trouble: isinstance(trouble, NotLeader))
