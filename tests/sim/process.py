"""One member's machine: a disk that lasts, and processes on it that come and go.

A process is a production ``Member`` on a production ``DurableLog``; what a thread pool and an event
loop do for it in production is done here by planned events. A job does its I/O at one moment of its
duration, so events fall before and behind it, as with a real thread. The process can be killed or
lose power between any two steps, be paused, have a slow, full, failing or decaying disk, and a
clock of its own.
"""

import random
import traceback
from collections.abc import Callable
from typing import Any

from minigfs.errors import ClusterError, DamageError, NoSpace
from minigfs.raft import Configuration, NodeId, RaftConfig, Role, SafetyViolation
from minigfs.raft.core import RaftNode
from minigfs.replication.durable_log import DurableLog, LogSettings
from minigfs.replication.machines import Machine, ReplicatedMachines
from minigfs.replication.member import Job, Lane, Member, MemberSettings, Outcome, Ticket
from minigfs.replication.peer_messages import PeerMessage
from minigfs.replication.sessions import SessionSettings
from tests.sim.checks.states import MachineWatch
from tests.sim.clock import SimRng
from tests.sim.disk import SimDisk
from tests.sim.hosted import Hosted
from tests.sim.key_value_machine import KeyValueMachine
from tests.sim.scheduler import MS
from tests.sim.setting import CrashPoint, Site, State
from tests.sim.violation import ProcessCrash, Violation

__all__ = ["KV_MACHINE", "Process"]

KV_MACHINE = "kv"
LOG_DIRECTORY = "log"
EPOCH_MS = 1_700_000_000_000
TURN_US = 20  # of a process's loop
CATCH_UP_TICKS = 2  # a timer that was held up makes up for so many


class Process:
    """A machine with a member's disk; ``member`` is there while a process runs on it."""

    def __init__(self, site: Site, node_id: NodeId, founding: Configuration, seed: str) -> None:
        self.id = node_id
        self.site = site
        self.chance = random.Random(seed)
        self.disk = SimDisk(site.options.disk_bytes)
        self.log_settings = LogSettings(segment_bytes=site.options.segment_bytes)
        DurableLog.create(
            self.disk,
            LOG_DIRECTORY,
            member_id=node_id,
            configuration=founding,
            settings=self.log_settings,
        )
        self.disk.forgets_syncs = site.options.disks_forget
        spread = site.options.tick_spread_permille
        self.tick_us = site.options.tick_us * (1000 + self.chance.randint(-spread, spread)) // 1000
        self.state = State.DOWN
        self.life = 0
        self.member: Member | None = None
        self.log: DurableLog
        self.kv: KeyValueMachine
        self.hosted: Hosted
        self.machines: ReplicatedMachines
        self.paused = False
        self.disk_factor = 1
        self.clock_offset_ms = 0
        self.clock_drift_permille = 0
        self.flipped_bits = 0
        self.down_until_us = 0
        self.io_is_failing = False
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._waiting: dict[Ticket, Callable[[Outcome], None]] = {}
        self._last_ticket = 0
        self._armed: tuple[CrashPoint, int, bool] | None = None
        self._pump_is_planned = False
        self._rest_is_planned = False
        self._busy: set[Lane] = set()

    # Views

    @property
    def is_up(self) -> bool:
        return self.member is not None

    @property
    def node(self) -> RaftNode:
        """The consensus core inside, to be looked at."""
        assert self.member is not None
        return self.member._node

    @property
    def leads(self) -> bool:
        return self.member is not None and self.node.state.role is Role.LEADER

    def now_ms(self) -> int:
        """This machine's wall clock."""
        elapsed_ms = self.site.scheduler.now_us // MS
        drift_ms = elapsed_ms * self.clock_drift_permille // 1000
        return EPOCH_MS + elapsed_ms + drift_ms + self.clock_offset_ms

    # Lives

    def start(self) -> None:
        """Begin a life with what is on the disk, unless it goes on or must wait."""
        if self.state is not State.DOWN:
            return
        wait_us = self.down_until_us - self.site.scheduler.now_us
        if wait_us > 0:
            self.site.scheduler.after(wait_us, self.start)
            return
        self.life += 1
        self.site.trace.note(f"{self.id} start {self.life}")
        try:
            self.log = DurableLog.open(self.disk, LOG_DIRECTORY, settings=self.log_settings)
            self._begin()
        except ProcessCrash:
            self.site.coverage["crash while starting"] += 1
            self._end(power=True)
        except DamageError as error:
            self._be_damaged(error)
        except OSError as error:
            self._fail_to_start(error)
        except Violation:
            raise
        except Exception as error:
            raise self._violation(error) from error

    def _be_damaged(self, error: DamageError) -> None:
        """The member says that its disk is not what it wrote: only right if that is so."""
        if not self.flipped_bits or isinstance(error, SafetyViolation):
            raise self._violation(error) from error
        self.site.coverage["refused to run"] += 1
        self.site.trace.note(f"{self.id} damaged", error)
        self._stop()
        self.state = State.DAMAGED

    def decay(self, chance: random.Random) -> bool:
        """One bit of some file of this machine becomes another."""
        files = [path for path in _files_under(self.disk, "") if self.disk.size_bytes(path)]
        if not files:
            return False
        path = chance.choice(files)
        with self.disk.open(path) as file:
            content = file.read_at(0, file.size_bytes())
        offset = chance.randrange(len(content))
        if not content[offset] and chance.random() < 0.9:
            offset = chance.randrange(len(content.rstrip(b"\0")) or 1)
        self.disk.flip_bit(path, offset, chance.randrange(8))
        self.flipped_bits += 1
        self.site.trace.note(f"{self.id} decays: {path} at {offset} of {len(content)}")
        return True

    def _fail_to_start(self, error: OSError) -> None:
        if not isinstance(error, NoSpace) and not self.io_is_failing:
            raise self._violation(error) from error
        self.site.coverage["could not start"] += 1
        self._end(power=False)

    def _begin(self) -> None:
        site, options = self.site, self.site.options
        watch = MachineWatch(site.book, self.id)
        watch.before_execution = lambda: self._pass(CrashPoint.APPLY)
        self.kv = KeyValueMachine(watch)
        machines: dict[str, Machine] = {KV_MACHINE: self.kv}
        if options.has_files:
            self.hosted = Hosted.make(watch, lambda: self.machines.applied_index, site.jobs)
            machines |= self.hosted.machines()
        self.machines = ReplicatedMachines(
            machines, SessionSettings(expire_after_ms=options.session_unused_ms)
        )
        guards = options.guards
        member = Member(
            config=RaftConfig(
                node_id=self.log.member_id,
                pre_vote=guards,
                check_quorum=guards,
                refuse_votes_while_led=guards,
                message_bytes_max=options.message_bytes_max,
                inflight_count_max=options.inflight_count_max,
                uncommitted_bytes_max=options.uncommitted_bytes_max,
                apply_bytes_max=options.apply_bytes_max,
                snapshot_retry_ticks=options.snapshot_retry_ticks,
                commit_news_at_once=options.commit_news_at_once,
                thrifty=options.thrifty,
                incarnation=self.chance.getrandbits(40),
            ),
            log=self.log,
            machines=self.machines,
            rng=SimRng(self.chance.getrandbits(64)),
            now_ms=self.now_ms,
            settings=MemberSettings(
                snapshot_every_entries=options.snapshot_every_entries,
                snapshot_every_bytes=options.snapshot_every_bytes,
                keep_entries=options.keep_entries,
                piece_bytes=options.piece_bytes,
                pieces_in_flight=options.pieces_in_flight,
                reserve_bytes=options.segment_bytes // 4,
            ),
        )
        site.ledger.started(self.id, self.log)
        self.member = member
        self.state = State.UP
        watch.is_live = True
        if self.life > 1:
            site.coverage["crash-restarts"] += 1
        site.scheduler.after(self.chance.randrange(self.tick_us), self._tick, self.life)
        self.handle(_nothing)

    def crash(self, *, power: bool) -> None:
        """End the process now: killed, or with the power of its machine."""
        if self.member is None:
            return
        self.site.coverage["power losses" if power else "kills"] += 1
        self._end(power=power)

    def _end(self, *, power: bool) -> None:
        self.site.trace.note(f"{self.id} {'loses power' if power else 'is killed'}")
        self._stop()
        if power and self.chance.random() < 0.3:
            self.disk.crash()
        elif power:
            self.disk.crash_by_chance(SimRng(self.chance.getrandbits(64)))
        else:
            self.disk.kill()
        self.state = State.DOWN
        self.site.scheduler.after(self._downtime_us(), self.start)

    def _stop(self) -> None:
        """Nothing of this life goes on."""
        member, self.member = self.member, None
        if member is not None:
            self.site.ledger.observe(member._node)
        self._inbox.clear()
        self._waiting.clear()
        self._busy.clear()
        self._pump_is_planned = self._rest_is_planned = False
        self.disarm()
        self.paused = False
        self.io_is_failing = False

    def _downtime_us(self) -> int:
        return self.chance.choice((20 * MS, 200 * MS, 200 * MS, 1500 * MS))

    def leave(self) -> None:
        """The operator takes the machine away for good."""
        self.site.trace.note(f"{self.id} is gone")
        self._stop()
        self.state = State.GONE

    def recover(self) -> None:
        """Whatever ails this machine ends, but for damage to its disk."""
        self.disk.resize(self.site.options.disk_bytes)
        self.disk.clear_faults()
        self.disk_factor = 1
        self.down_until_us = 0
        self.disarm()
        self.resume()
        self.start()

    # Crashes at a chosen step

    def arm(self, point: CrashPoint, count: int, *, power: bool) -> None:
        """Crash at the ``count``-th time from now that this point is passed."""
        self._armed = (point, count, power)
        if point is CrashPoint.DISK:
            self.disk.before_change = self._before_change

    def disarm(self) -> None:
        self._armed = None
        self.disk.before_change = None

    def _before_change(self, operation: str, path: str) -> None:
        self._pass(CrashPoint.DISK)

    def _pass(self, point: CrashPoint) -> None:
        if self._armed is None or self._armed[0] is not point:
            return
        _, count, power = self._armed
        if count > 1:
            self._armed = (point, count - 1, power)
            return
        self.disarm()
        self.site.coverage[f"crash at {point.value}"] += 1
        raise ProcessCrash

    # Events

    def receive(self, message: PeerMessage) -> bool:
        if self.member is None:
            return False
        self.handle(self.member.receive, message)
        return True

    def handle(self, action: Callable[..., None], *arguments: Any) -> None:
        """Let an event happen to the process, and let it do what follows."""
        member = self.member
        if member is None:
            return
        if self.paused:
            self._inbox.append((action, arguments))
            return
        self._guarded(action, arguments)
        if self.member is not member:
            return
        if not self.site.options.pump_delay_us:
            self._pump(self.life)
        else:
            self.site.ledger.observe(member._node)
            if not self._pump_is_planned:
                self._pump_is_planned = True
                delay_us = self.chance.randrange(self.site.options.pump_delay_us)
                self.site.scheduler.after(delay_us, self._pump, self.life)

    def _guarded(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Run a piece of the process; whatever it raises ends it, and some of that is a fault."""
        try:
            action(*arguments)
        except ProcessCrash:
            self.crash(power=self.chance.random() < 0.6)
        except Violation:
            raise
        except DamageError as error:
            self._be_damaged(error)
        except OSError as error:
            if isinstance(error, NoSpace) or not self.io_is_failing:
                raise self._violation(error) from error
            self.site.coverage["ended by I/O error"] += 1
            self.crash(power=self.chance.random() < 0.5)
        except Exception as error:
            raise self._violation(error) from error

    def _violation(self, error: BaseException) -> Violation:
        """Production code raised what ends the process though nothing was done to it."""
        at = "?"
        for frame in traceback.extract_tb(error.__traceback__):
            if "/minigfs/" in frame.filename:
                at = f"{frame.filename.rpartition('/minigfs/')[2]}:{frame.name}"
        return Violation(f"{type(error).__name__} in {at}", f"{self.id}: {error}")

    def _tick(self, life: int) -> None:
        if life != self.life or self.member is None:
            return
        self.site.scheduler.after(self.tick_us, self._tick, life)
        if self.paused:
            ticks = sum(action == self.member.tick for action, _ in self._inbox)
            if ticks >= CATCH_UP_TICKS:
                return
        self.handle(self.member.tick)

    def _pump(self, life: int) -> None:
        """Take what is due until nothing is; then hold the result against the invariants."""
        if life != self.life or self.member is None:
            return
        self._pump_is_planned = False
        if self.paused:
            self._inbox.append((_nothing, ()))
            return
        self._guarded(self._do_due, ())
        if self.member is not None:
            self.site.ledger.observe(self.node)

    def _do_due(self) -> None:
        """As the host does it: once after events, and again in another turn if there is more."""
        member = self.member
        assert member is not None
        due = member.due()
        if not due:
            return
        self.site.ledger.observe(member._node)
        for message in due.messages:
            self._pass(CrashPoint.SEND)
            self.site.ledger.sent(message, self.log)
            self.site.network.send(message)
        for job in due.jobs:
            self._start_job(job)
        for outcome in due.outcomes:
            waiting = self._waiting.pop(outcome.ticket, None)
            if waiting is None:
                raise Violation("outcome without a request", f"{self.id}: {outcome}")
            waiting(outcome)
        if due.more:
            self.site.scheduler.after(TURN_US, self._pump, self.life)
        if member.has_untold and not self._rest_is_planned:
            self._rest_is_planned = True
            delay_us = self.chance.randrange(self.site.options.rest_us_max)
            self.site.scheduler.after(delay_us, self._tell_rest, self.life)

    def _tell_rest(self, life: int) -> None:
        if life == self.life and self.member is not None:
            self._rest_is_planned = False
            self.handle(self.member.tell_rest)

    # Pauses

    def pause(self) -> None:
        """As SIGSTOP: nothing happens in the process, the world goes on."""
        if self.member is not None and not self.paused:
            self.site.trace.note(f"{self.id} pauses")
            self.paused = True

    def resume_life(self, life: int) -> None:
        """Resume if it is still the process that was paused."""
        if life == self.life:
            self.resume()

    def resume(self) -> None:
        if not self.paused:
            return
        self.site.trace.note(f"{self.id} resumes")
        self.paused = False
        held, self._inbox = self._inbox, []
        for action, arguments in held:
            self.handle(action, *arguments)

    # Jobs

    def _start_job(self, job: Job) -> None:
        if job.lane in self._busy:
            raise Violation("two jobs in a lane", f"{self.id}: {job}")
        self._busy.add(job.lane)
        duration_us = 50 + self.chance.randrange(self.site.options.disk_us_max) * self.disk_factor
        begin_us = self.chance.randrange(duration_us)
        self.site.scheduler.after(begin_us, self._run_job, self.life, job, duration_us - begin_us)

    def _run_job(self, life: int, job: Job, remaining_us: int) -> None:
        if life != self.life or self.member is None:
            return
        if self.paused:
            self._inbox.append((self._run_job, (life, job, remaining_us)))
            return
        error: Exception | None = None
        try:
            self._pass(CrashPoint.JOB_START)
            job.run()
            self._pass(CrashPoint.JOB_END)
        except ProcessCrash:
            self.crash(power=self.chance.random() < 0.75)
            return
        except Violation:
            raise
        except (OSError, DamageError) as failure:
            error = failure
        except Exception as failure:
            raise self._violation(failure) from failure
        self.site.scheduler.after(remaining_us, self._end_job, life, job, error)

    def _end_job(self, life: int, job: Job, error: Exception | None) -> None:
        if life != self.life or self.member is None:
            return
        self.site.coverage[f"{job.lane.value} jobs"] += 1
        self._busy.discard(job.lane)
        if error is None:
            self.handle(self.member.done, job)
        else:
            self.site.trace.note(f"{self.id} job fails", error)
            self.handle(self.member.failed, job, error)

    # Requests

    def ask(
        self, action: Callable[[Member, Ticket], None], then: Callable[[Outcome], None]
    ) -> bool:
        """Hand a request to the process, if there is one; its outcome may never come."""
        if self.member is None:
            return False
        self.handle(self.ask_within, action, then)
        return True

    def ask_within(
        self, action: Callable[[Member, Ticket], None], then: Callable[[Outcome], None]
    ) -> None:
        """The same from inside the process: to be called by one of its own events."""
        assert self.member is not None
        self._last_ticket += 1
        ticket = Ticket(self._last_ticket)
        self._waiting[ticket] = then
        try:
            action(self.member, ticket)
        except ClusterError as refusal:
            del self._waiting[ticket]
            then(Outcome(ticket=ticket, reply=None, error=refusal))


def _files_under(disk: SimDisk, directory: str) -> list[str]:
    found: list[str] = []
    for name in disk.list(directory):
        path = f"{directory}/{name}" if directory else name
        try:
            found += _files_under(disk, path)
        except NotADirectoryError:
            found.append(path)
    return found


def _nothing() -> None:
    """An event that only lets the process look around."""
