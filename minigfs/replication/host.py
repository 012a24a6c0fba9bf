"""A member on real time, threads and sockets: what the services of a master process see.

::

    propose, read_barrier --\\                       /--> links to the other members
    frames of other members --> Member --> one pump ----> threads of the log and of snapshots
    ticks, jobs that ended  --/       a turn of the loop \\--> answers

Events only mark the member; one pump a turn of the loop then does all that is due. So proposals of
one turn travel in one message and are durable by one sync, and what arrives while a sync runs
is the next batch (group commit). Frames of other members are stepped in the turn that received
them, ahead of requests that wait for theirs: a busy leader stays a leader.

Whatever the member, its log or its disk cannot survive ends the host: ``wait_failed`` raises, and
the process must end, since nobody can know what the disk holds.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from minigfs.errors import (
    DeadlineExceeded,
    InvalidConfig,
    MinigfsError,
    NotLeader,
    ProtocolError,
    Unreachable,
)
from minigfs.ids import Origin
from minigfs.ports import Clock, Rng
from minigfs.raft import (
    MembershipChange,
    NodeId,
    ProposalDropped,
    RaftConfig,
    Role,
    TransferRefused,
)
from minigfs.replication.addresses import MemberAddresses
from minigfs.replication.bulletin import Bulletin
from minigfs.replication.durable_log import DurableLog
from minigfs.replication.group_news import GroupNews
from minigfs.replication.jobs import Job
from minigfs.replication.lanes import LaneThreads
from minigfs.replication.machines import Machine, ReplicatedMachines
from minigfs.replication.member import Member, MemberView
from minigfs.replication.old_copies import Acknowledgements
from minigfs.replication.peer_messages import PeerMessage
from minigfs.replication.peers import MemberHello, MemberReport, PeerLinks
from minigfs.replication.pulse import Pulse
from minigfs.replication.requests import OpenRequests
from minigfs.replication.roster import MemberLocation, MemberStatus, Roster
from minigfs.replication.settings import HostSettings
from minigfs.replication.succession import Succession
from minigfs.replication.ticker import Ticker
from minigfs.replication.tickets import Ticket
from minigfs.transport.address import Address
from minigfs.transport.security import Security

__all__ = ["HostSettings", "Machine", "MemberLocation", "MemberStatus", "ReplicatedHost"]

logger = logging.getLogger(__name__)


LeadershipWatcher = Callable[[int | None], None]


class ReplicatedHost:
    """Belongs to one event loop. ``start`` when others can connect; then everything else."""

    def __init__(
        self,
        log: DurableLog,
        machines: Mapping[str, Machine],
        *,
        security: Security,
        directory: Path,
        founding: Mapping[NodeId, Address],
        clock: Clock,
        rng: Rng,
        settings: HostSettings | None = None,
    ) -> None:
        """Restores the machines from the log's snapshot, which takes as long as it takes.

        ``founding`` is where members listen that the log does not know yet.
        """
        self.settings = settings or HostSettings()
        self._log = log
        self._machines = ReplicatedMachines(machines)
        self._member = Member(
            config=RaftConfig(
                node_id=log.member_id,
                election_timeout_ticks=self.settings.election_timeout_ticks,
                heartbeat_ticks=self.settings.heartbeat_ticks,
                commit_news_at_once=False,  # see ``GroupNews``
                thrifty=True,
                incarnation=rng.random_u64() >> 1,
            ),
            log=log,
            machines=self._machines,
            rng=rng,
            now_ms=clock.now_ms,
            settings=self.settings.member,
        )
        self._addresses = MemberAddresses(founding, lambda: self._machines.member_addresses)
        self.links = PeerLinks(log.member_id, self._addresses, security, self)
        self._roster = Roster(log.member_id, directory, self._addresses, clock)
        self._succession = Succession(self._member, self._roster, self.links.is_heard)
        self._requests = OpenRequests(self._not_leader)
        self._acknowledgements = Acknowledgements()
        self._bulletin = Bulletin(
            member=self._member,
            links=self.links,
            roster=self._roster,
            addresses=self._addresses,
            clock=clock,
            new_ticket=self._requests.new_ticket,
            acknowledged=self._acknowledged,
        )
        self._watchers: list[LeadershipWatcher] = []
        self._leading: int | None = None
        self._pulse = Pulse()
        self._due_pump: asyncio.Handle | None = None
        self._commit_seen = 0
        self._first_end: tuple[int, int] | None = self._durable_end()
        self._stopping = False
        self._ended = False
        self._lanes: LaneThreads | None = None

    # Life

    async def start(self, address: Address) -> None:
        """Take part; ``address`` is where others reach this member. Of a group of one, lead it."""
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._lanes = LaneThreads(self._job_returned)
        self._news = GroupNews(tell_rest=self._tell_rest, tell_commit=self._tell_commit)
        self._addresses.says(self.member_id, address)
        self.links.start(address)
        self._ticker = Ticker(
            self._on_tick,
            tick_ms=self.settings.tick_ms,
            catch_up_max=self.settings.catch_up_ticks_max,
        )
        self._bulletin.tell(leads=False)
        if self._member.status().configuration.voters == (self.member_id,):
            await self._lead_alone()

    async def _lead_alone(self) -> None:
        """There is nobody whose silence would have to be waited for."""
        while self._member.status().role is Role.FOLLOWER:
            self._member.tick()
        self._mark()
        await self.until(lambda: self.is_leader, timeout_ms=None)

    async def wait_failed(self) -> None:
        """Return after ``stop``; raise if the member cannot go on: the process must end."""
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """End. Proposals that cannot be decided in a moment get ``OutcomeUnknown``."""
        if self._lanes is None:
            self._log.close()
            return
        self._stopping = True
        if self.is_leader:
            await self.until(
                lambda: not self._requests.tickets(), timeout_ms=self.settings.election_timeout_ms
            )
        self._end()
        await self._lanes.stop()
        await self.links.stop()
        self._log.close()
        if not self._failure.done():
            self._failure.set_result(None)

    async def hand_over(self) -> None:
        """If this member leads and others can, let one of them: before it stops."""
        self._stopping = True
        candidates = self._succession.candidates() if self.is_leader else []
        for candidate in candidates:
            try:
                await self.transfer(candidate)
            except MinigfsError as error:
                logger.warning("leadership was not handed over: %s", error)
            else:
                return

    # What services use

    @property
    def member_id(self) -> NodeId:
        return self._log.member_id

    @property
    def machines(self) -> ReplicatedMachines:
        return self._machines

    @property
    def is_leader(self) -> bool:
        """This member leads, and its machines show all that was ever acknowledged. Another may
        have been elected meanwhile; ``read_barrier`` knows."""
        return self._leading is not None

    @property
    def term(self) -> int:
        return self._member.term

    @property
    def commit_index(self) -> int:
        return self._member.commit_index

    @property
    def leader(self) -> MemberLocation | None:
        """Who leads, as far as this member knows."""
        leader_id = self._member.leader_id
        if leader_id is None:
            return None
        address = self._addresses.get(leader_id)
        return None if address is None else MemberLocation(member_id=leader_id, address=address)

    def require_leader(self) -> None:
        """Raise ``NotLeader``, with the leader's address if it is known, unless this one leads."""
        if self._leading is None:
            raise self._not_leader()

    def watch_leadership(self, watcher: LeadershipWatcher) -> None:
        """``watcher(term)`` is called when this member has begun to lead and its machines are up
        to date, ``watcher(None)`` when it leads no more."""
        self._watchers.append(watcher)
        if self._leading is not None:
            watcher(self._leading)

    async def propose(
        self,
        machine: str,
        command: bytes,
        origin: Origin | None = None,
        *,
        to_lead: bool = False,
    ) -> bytes:
        """The machine's reply, once the command is committed and applied here.

        ``to_lead``: what a leader logs before it serves goes into a full disk's reserve.

        Nothing was or will be applied if it raises ``NotLeader`` (its hint is where to go),
        ``NoSpace``, ``UsageError`` or a session's refusal. After ``OutcomeUnknown``, or when it is
        cancelled, the command may be applied, once.
        """
        while True:
            self._check_running()
            ticket = self._requests.new_ticket()
            try:
                self._member.propose(machine, command, origin, ticket, to_lead=to_lead)
            except NotLeader:
                raise self._not_leader() from None
            except ProposalDropped:  # too much is on its way; some of it will have arrived
                await self._pulse.next()
            else:
                return await self._outcome(ticket)

    async def read_barrier(self) -> None:
        """After it, what the machines show is at least as new as this call. Any member may ask.

        Raises ``NotLeader`` if that cannot be confirmed now: ask again, or the leader.
        """
        self._check_running()
        ticket = self._requests.new_ticket()
        try:
            self._member.read(ticket)
        except NotLeader:
            raise self._not_leader() from None
        await self._outcome(ticket)

    # The group

    def members(self) -> tuple[MemberStatus, ...]:
        """All members as this one knows them, itself included."""
        return self._roster.statuses(self._member.status())

    @property
    def addresses(self) -> MemberAddresses:
        """Where the members listen."""
        return self._addresses

    def view(self) -> MemberView:
        """Of the group, as this member sees it."""
        return self._member.status()

    async def change_membership(self, change: MembershipChange) -> None:
        """Return when the change is committed. Raises ``NotLeader``, ``MembershipRefused``."""
        self._check_running()
        ticket = self._requests.new_ticket()
        try:
            self._member.change_membership(change, ticket)
        except NotLeader:
            raise self._not_leader() from None
        await self._outcome(ticket)

    async def transfer(self, target: NodeId | None = None) -> None:
        """Hand leadership to ``target``, or to the voter that has most of the log.

        Return when this member leads no more. Raises ``NotLeader``, ``TransferRefused``, or
        ``DeadlineExceeded`` if the target did not take over; then this member goes on leading.
        """
        self.require_leader()
        if target is None:
            candidates = self._succession.candidates()
            if not candidates:
                raise DeadlineExceeded("no other master is there to take over")
            target = candidates[0]
        term = self._leading
        self._member.transfer_leadership(target)
        self._mark()
        if target == self.member_id:
            return
        timeout_ms = 2 * self.settings.election_timeout_ms
        if not await self.until(lambda: self._leading != term, timeout_ms=timeout_ms):
            raise DeadlineExceeded(
                f"master {target} did not take over within {timeout_ms} ms: is it alive?"
            )

    # What the links ask and tell (``PeerEvents``)

    def durable_end(self) -> tuple[int, int]:
        """Until somebody has let this member in, what it had when it began: a leader that speaks
        first would give an old copy its term, and then it would be known for one no more."""
        return self._first_end or self._durable_end()

    def _durable_end(self) -> tuple[int, int]:
        return self._log.hard_state().current_term, self._log.last_index()

    def examine(self, hello: MemberHello) -> None:
        view = self._member.status()
        self._acknowledgements.note(view.term, self._acknowledged(view))
        self._acknowledgements.check(hello.member, hello.term, hello.last_index)

    def mistaken(self, hello: MemberHello) -> None:
        """A group of one where another group has a member: the directory was lost and made anew, so
        there would be two file systems in one cluster, and clients would see either."""
        configuration = self._member.status().configuration
        were_ours = {hello.member, hello.target} & set(configuration.retired)
        if configuration.members == (self.member_id,) and not were_ours:
            self._fail(
                InvalidConfig(
                    f"master {hello.member} at {hello.address} expects master {hello.target} of "
                    f"its group here, and this is {self.member_id}, a group of its own: was the "
                    "directory lost and made anew? Move it away, remove the lost master from the "
                    f"group (admin masters remove), start a new one with --join {hello.address}"
                )
            )

    def _acknowledged(self, view: MemberView) -> dict[NodeId, int]:
        """What a leader knows to be on disks, its own included, which only grows in its term."""
        if view.role is not Role.LEADER:
            return {}
        return {**view.match_indexes, self.member_id: self._log.last_index()}

    def message(self, message: PeerMessage) -> None:
        if self._lanes is None or self._ended:
            return
        try:
            self._member.receive(message)
        except ProtocolError as error:
            logger.warning("dropped a message of master %s: %s", message.source, error)
        except Exception as error:  # whatever it is, the member's state is in doubt
            self._fail(error)
        self._mark()

    def report(self, member: NodeId, report: MemberReport) -> None:
        self._roster.heard(member, report)
        self._acknowledgements.note(report.term, report.acknowledged)

    def connected(self, member: NodeId) -> None:
        self._first_end = None
        self._bulletin.hasten()  # it knows nothing of this member yet

    def unreachable(self, member: NodeId) -> None:
        self._member.unreachable(member)
        self._mark()

    def gone(self, member: NodeId) -> None:
        """If it led, its followers stand in turn."""
        if self._ended or member != self._member.leader_id:
            return
        self._member.gone(member)
        turn = self._succession.turn_after(member)
        if turn is not None:
            wait_s = turn * self.settings.succession_ms / 1000
            self._loop.call_later(wait_s, self._succeed)
        self._mark()

    def _succeed(self) -> None:
        if not self._ended:
            self._member.campaign()
            self._mark()

    def turned_away(self, error: MinigfsError) -> None:
        self._fail(error)

    # Turns of the loop

    def _mark(self) -> None:
        """Something happened: see to what is due, once this turn's events are all in."""
        if self._due_pump is None:
            self._due_pump = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self._due_pump is not None:
            self._due_pump.cancel()  # else both go on while there is more to do, and soon a dozen
            self._due_pump = None
        if self._lanes is None or self._ended:
            return
        try:
            due = self._member.due()
            if due.messages:
                self._send(due.messages)
            for job in due.jobs:
                self._lanes.run(job)
            for outcome in due.outcomes:
                self._requests.settle(outcome)
            self._notice_leadership()
        except Exception as error:  # whatever it is, the member's state is in doubt
            self._fail(error)
            return
        has_committed = self._member.commit_index > self._commit_seen
        self._commit_seen = self._member.commit_index
        if self._member.has_untold or (has_committed and self._leading is not None):
            self._news.happened()
        if due.more:
            self._mark()
        self._pulse.beat()

    def _tell_rest(self) -> None:
        self._member.tell_rest()
        self._mark()

    def _tell_commit(self) -> None:
        self._member.tell_commit()
        self._mark()

    def _send(self, messages: Iterable[PeerMessage]) -> None:
        for member in self.links.send(messages):
            self._member.unreachable(member)

    def _job_returned(self, job: Job, error: BaseException | None) -> None:
        if self._ended:
            return
        try:
            if error is None:
                self._member.done(job)
            elif isinstance(error, Exception):
                self._member.failed(job, error)
            else:
                raise error
        except Exception as fatal:  # the log, or a snapshot, is in doubt
            self._fail(fatal)
        self._pump()  # at once: whoever waits for this write has waited long enough

    def _on_tick(self, count: int) -> None:
        if self._ended:
            return
        try:
            for _ in range(count):
                self._member.tick()
            self._bulletin.tell(leads=self.is_leader)
            if self._leading is not None and self._member.disk_is_full:
                self._lead_from_another_disk()
        except Exception as error:  # whatever it is, the member's state is in doubt
            self._fail(error)
        self._mark()

    def _notice_leadership(self) -> None:
        leading = self._member.term if self._member.leads_for_certain else None
        if leading == self._leading:
            return
        self._bulletin.hasten()
        if self._leading is not None:
            logger.info("leads no more; term %d", self._member.term)
            undecided = self._requests.tickets()
            grace_s = self.settings.election_timeout_ms / 1000
            self._loop.call_later(grace_s, self._requests.give_up, undecided)
            self._leading = None
            self._tell_watchers()
        if leading is not None:
            logger.info("leads in term %d, from entry %d", leading, self._member.commit_index)
            self._leading = leading
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        for watcher in self._watchers:
            watcher(self._leading)

    # Requests

    async def _outcome(self, ticket: Ticket) -> bytes:
        self._mark()
        return await self._requests.outcome(ticket)

    def _check_running(self) -> None:
        if self._stopping or self._ended:
            raise Unreachable("this master is stopping: try again when it is back")

    def _not_leader(self) -> NotLeader:
        leader = self.leader
        if leader is None:
            return NotLeader("no master leads just now: try again in a moment")
        if leader.member_id == self.member_id:
            return NotLeader("this master is about to lead: try again in a moment", leader.address)
        return NotLeader(f"this master does not lead: ask {leader.address}", leader.address)

    async def until(self, holds: Callable[[], bool], *, timeout_ms: int | None) -> bool:
        """Whether it held within the time; looked at after each pump, at least once a tick."""
        return (
            await self._pulse.until(lambda: self._ended or holds(), timeout_ms=timeout_ms)
            and not self._ended
        )

    def _lead_from_another_disk(self) -> None:
        """A leader whose disk is full takes no changes; one that has room does."""
        target = self._succession.with_room()
        if target is not None:
            with suppress(NotLeader, TransferRefused):  # it is being handed over, or lost
                self._member.transfer_leadership(target)
                logger.warning("the disk is full: master %s shall lead", target)

    # The end

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
        self._end()

    def _end(self) -> None:
        """Nothing happens any more; whoever waits is told."""
        self._ended = True
        self._ticker.stop()
        self._news.stop()
        self._requests.give_up(self._requests.tickets())
        if self._leading is not None:
            self._leading = None
            self._tell_watchers()
        self._pulse.beat()
