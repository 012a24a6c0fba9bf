"""The production coordinator on whichever member leads, in virtual time.

What ``minimr.cluster.jobs_term`` does with asyncio is done here by planned events: a request is an
event, effects are carried out, proposals go through the member's log in their order and come back
as events. It runs inside the member's process: it pauses and dies with it, and ends when the member
leads no more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from minigfs.errors import ClusterError, MinigfsError
from minigfs.master import commands as fs_commands
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.master.namespace import get_inode, split_path
from minigfs.replication.member import Member, Outcome, Ticket
from minigfs.transport.messages import Message
from minimr.cluster.jobs_term import JOBS_MACHINE, path_of_url
from minimr.cluster.publish import PUBLISH_MACHINE, PublishCommand, decode_refusal, encode_publish
from minimr.config import TICK_INTERVAL_MS
from minimr.coordinator.commands import OpenTerm, PublishJob, encode_command
from minimr.coordinator.coordinator import Coordinator
from minimr.coordinator.effects import DiscardStaging, Effect, Propose, PublishOutput, Refuse, Reply
from minimr.coordinator.events import (
    Applied,
    Called,
    CallerGone,
    CoordinatorRequest,
    Event,
    PublishRefused,
    Refused,
    Tick,
)
from minimr.ids import JobId
from minimr.messages import Failure, FailureKind, JobSpec, JobState, TaskOffer
from minimr.plan.naming import working_urls
from tests.sim.checks.jobs import JobBook
from tests.sim.process import Process
from tests.sim.scheduler import MS, Scheduler
from tests.sim.trace import Trace

__all__ = ["Coordinators", "staging_url"]

TURN_US = 50 * MS
RETRY_US = 500 * MS
_Answer = Callable[[Message | MinigfsError], None]


def staging_url(job_id: JobId) -> str:
    return f"minigfs:///out/_minimr-{job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What all coordinators of a world share."""

    scheduler: Scheduler
    trace: Trace
    book: JobBook
    before_publication: Callable[[Process], None]
    opened: Callable[[], None]


class Coordinators:
    """One for every member and term that leads."""

    def __init__(
        self,
        scheduler: Scheduler,
        trace: Trace,
        book: JobBook,
        processes: Callable[[], list[Process]],
        before_publication: Callable[[Process], None],
        opened: Callable[[], None],
    ) -> None:
        self._desk = Desk(
            scheduler=scheduler,
            trace=trace,
            book=book,
            before_publication=before_publication,
            opened=opened,
        )
        self._processes = processes
        self._terms: dict[str, _Term | None] = {}
        self._opening: dict[str, tuple[int, int]] = {}
        self._next_token = 0
        scheduler.after(TURN_US, self._turn)

    def call(self, process: Process, request: CoordinatorRequest, then: _Answer) -> int | None:
        """Ask the coordinator of a member, if there is one now; the answer may never come."""
        term = self._terms.get(process.id)
        if term is None or term.is_over:
            return None
        self._next_token += 1
        token = self._next_token
        process.handle(term.called, token, request, then)
        return token

    def hang_up(self, process: Process, token: int) -> None:
        """The caller waits no more."""
        term = self._terms.get(process.id)
        if term is not None and not term.is_over:
            process.handle(term.hung_up, token)

    def _turn(self) -> None:
        self._desk.scheduler.after(TURN_US, self._turn)
        for process in self._processes():
            if process.leads and not process.paused:
                process.handle(self._look_after, process)

    def _look_after(self, process: Process) -> None:
        member, term = process.member, self._terms.get(process.id)
        assert member is not None
        if term is not None and not term.is_over:
            term.tick()
            return
        tenure = (process.life, member.term)
        if not member.leads_for_certain or self._opening.get(process.id) == tenure:
            return
        self._opening[process.id] = tenure
        command = encode_command(OpenTerm(now_ms=process.now_ms(), term=member.term))

        def ask(member: Member, ticket: Ticket) -> None:
            member.propose(JOBS_MACHINE, command, None, ticket)

        def answered(outcome: Outcome) -> None:
            if outcome.error is None:
                self._desk.scheduler.after(0, process.handle, self._open, process, tenure)
            elif self._opening.get(process.id) == tenure:
                del self._opening[process.id]

        process.ask_within(ask, answered)

    def _open(self, process: Process, tenure: tuple[int, int]) -> None:
        member = process.member
        assert member is not None
        if (process.life, member.term) == tenure and member.is_leader:
            self._terms[process.id] = _Term(self._desk, process, member.term)
            self._desk.opened()


class _Term:
    """One coordinator. All its methods are called by events of its process."""

    def __init__(self, desk: Desk, process: Process, term: int) -> None:
        self._desk = desk
        self._process = process
        self._life = process.life
        self._term = term
        self._offset_ms = process.now_ms() - desk.scheduler.now_us // MS
        self._ticked_us = desk.scheduler.now_us
        self._waiting: dict[int, _Answer] = {}
        self._coordinator = Coordinator(process.hosted.jobs, term=term, now_ms=self._now_ms())
        desk.trace.note(f"{process.id} coordinates in term {term}")
        for ended in process.hosted.jobs.state.history:
            if ended.state is not JobState.DONE:
                self._discard_all(staging_url(ended.job_id))

    @property
    def is_over(self) -> bool:
        process = self._process
        member = process.member
        return (
            process.life != self._life
            or member is None
            or not member.is_leader
            or member.term != self._term
        )

    def _now_ms(self) -> int:
        return self._offset_ms + self._desk.scheduler.now_us // MS

    # Events

    def called(self, token: int, request: CoordinatorRequest, then: _Answer) -> None:
        self._waiting[token] = then
        self._handle(Called(token=token, request=request))

    def hung_up(self, token: int) -> None:
        if self._waiting.pop(token, None) is not None:
            self._handle(CallerGone(token=token))

    def tick(self) -> None:
        if self._desk.scheduler.now_us - self._ticked_us >= TICK_INTERVAL_MS * MS:
            self._ticked_us = self._desk.scheduler.now_us
            self._handle(Tick())

    def _later(self, delay_us: int, action: Callable[..., None], *arguments: object) -> None:
        self._desk.scheduler.after(delay_us, self._process.handle, action, *arguments)

    def _handle(self, event: Event) -> None:
        if self.is_over:
            return
        for effect in self._coordinator.handle(event, self._now_ms()):
            self._carry_out(effect)

    # Effects

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Reply(token=token, message=message):
                self._settle(token, message)
            case Refuse(token=token, error=error):
                self._settle(token, error)
            case Propose():
                self._propose(effect)
            case PublishOutput(spec=spec):
                self._publish(spec)
            case DiscardStaging(spec=spec):
                self._discard_all(spec.staging)
            case _:
                assert_never(effect)

    def _settle(self, token: int, answer: Message | MinigfsError) -> None:
        if isinstance(answer, TaskOffer) and answer.assignment is not None:
            for assignment in (answer.assignment, *answer.more):
                attempt = assignment.attempt
                self._desk.trace.note(f"{self._process.id} hands out {attempt}")
                self._desk.book.assigned(attempt, self._process.machines.applied_index)
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            waiting(answer)

    def _commit(
        self, machine: str, command: bytes, then: Callable[[bytes | ClusterError], None]
    ) -> None:
        """``then`` in another turn, unless this coordinator is over by then."""
        if self.is_over:
            return

        def ask(member: Member, ticket: Ticket) -> None:
            member.propose(machine, command, None, ticket)

        def answered(outcome: Outcome) -> None:
            if outcome.error is None:
                assert outcome.reply is not None
                self._later(0, then, outcome.reply)
            elif isinstance(outcome.error, ClusterError):
                self._later(0, then, outcome.error)
            else:
                raise outcome.error

        self._process.ask_within(ask, answered)

    def _propose(self, effect: Propose) -> None:
        command, token = effect.command, effect.token

        def committed(answer: bytes | ClusterError) -> None:
            if isinstance(answer, bytes):
                self._handle(Applied(command=command, token=token))
            elif token is not None:
                self._settle(token, answer)
                self._handle(Refused(command=command))
            else:
                self._later(RETRY_US, self._propose, effect)

        self._commit(JOBS_MACHINE, encode_command(command), committed)

    def _publish(self, spec: JobSpec) -> None:
        now_ms = self._now_ms()
        command = PublishCommand(
            job_id=spec.job_id,
            staging=path_of_url(spec.staging),
            output=path_of_url(spec.output),
            overwrite=spec.overwrite,
            now_ms=now_ms,
        )

        def committed(answer: bytes | ClusterError) -> None:
            if not isinstance(answer, bytes):
                self._later(RETRY_US, self._publish, spec)
            elif (refusal := decode_refusal(answer)) is None:
                self._handle(Applied(command=PublishJob(now_ms=now_ms, job_id=spec.job_id)))
            else:
                failure = Failure(kind=FailureKind.OUTPUT, error=refusal.message)
                self._handle(PublishRefused(job_id=spec.job_id, failure=failure))

        self._desk.before_publication(self._process)
        self._commit(PUBLISH_MACHINE, encode_publish(command), committed)

    def _discard_all(self, staging: str) -> None:
        for url in working_urls(staging):
            self._discard(url)

    def _discard(self, staging: str) -> None:
        path = path_of_url(staging)
        try:
            get_inode(self._process.hosted.files.state, split_path(path))
        except MinigfsError:
            return
        command = fs_commands.Remove(self._process.now_ms(), path, recursive=True)

        def committed(answer: bytes | ClusterError) -> None:
            if not isinstance(answer, bytes):
                self._later(RETRY_US, self._discard, staging)

        self._commit(FILE_SYSTEM_MACHINE, fs_commands.encode_command(command), committed)
