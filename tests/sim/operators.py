"""The operator: adds members, promotes and removes them, replaces damaged ones, moves leadership.

Whatever outcome a change reported, it is done when the committed configuration shows it, and tried
again until then. A patient operator has one change on its way at a time; the others show that the
group's own rules refuse more.
"""

import random
from dataclasses import dataclass

from minigfs.errors import ClusterError
from minigfs.raft import ChangeKind, MembershipChange, NodeId
from minigfs.replication.member import Member, Outcome, Ticket
from tests.sim.arena import Arena
from tests.sim.process import Process
from tests.sim.scheduler import MS, SECOND
from tests.sim.setting import State

__all__ = ["Operator"]

MEMBERS_MAX = 6
VOTERS_MIN = 3
GOALS_MAX = 3  # at a time; what a group without a leader was asked for does not pile up
GIVE_UP_US = 600 * MS


@dataclass(slots=True)
class Goal:
    """Bring ``joining`` in as a voter, then get ``leaving`` out."""

    joining: NodeId | None = None
    leaving: NodeId | None = None


class Operator:
    """Works on its goals every now and then; ``rest`` ends that."""

    def __init__(self, arena: Arena, seed: int) -> None:
        self._arena = arena
        self._site = arena.site
        self._chance = random.Random(f"operator {seed}")
        self._goals: list[Goal] = []
        self._busy_until_us = 0
        self._is_patient = self._chance.random() < 0.6
        self.resting = False
        self._site.scheduler.after(100 * MS, self._work)

    @property
    def is_joining(self) -> bool:
        """A new member is on its way in."""
        return any(goal.joining is not None for goal in self._goals)

    # What it is asked for

    def join(self, members_max: int = MEMBERS_MAX) -> bool:
        """Add one member."""
        joining = sum(goal.joining is not None for goal in self._goals)
        if len(self._goals) >= GOALS_MAX or len(self._arena.members) + joining >= members_max:
            return False
        self._goals.append(Goal(joining=self._arena.newcomer().id))
        return True

    def remove(self, node: NodeId) -> bool:
        """Get one member out; where few are left, another one comes in first."""
        if len(self._goals) >= GOALS_MAX:
            return False
        if any(goal.leaving for goal in self._goals) or not self._arena.can_remove(node):
            return False  # two at once might take the majority away, each of them not
        if len(self._site.ledger.configuration.voters) <= VOTERS_MIN:
            self.replace(node)  # one more for a while
        else:
            self._goals.append(Goal(leaving=node))
        return True

    def replace(self, damaged: NodeId) -> None:
        """A new member for one whose disk is lost; the old id is never used again."""
        self._goals.append(Goal(joining=self._arena.newcomer().id, leaving=damaged))

    def transfer(self, process: Process, target: NodeId) -> bool:
        asked = False

        def ask(member: Member, ticket: Ticket) -> None:
            nonlocal asked
            member.transfer_leadership(target)
            asked = True

        process.ask(ask, lambda outcome: None)
        self._site.trace.note(f"operator: {process.id} to hand over to {target}: {asked}")
        return asked

    # How it works

    def rest(self) -> None:
        self.resting = True

    def _work(self) -> None:
        if self.resting:
            return
        self._site.scheduler.after(self._chance.randrange(20 * MS, 120 * MS), self._work)
        self._look_for_damage()
        if self._is_patient and self._site.scheduler.now_us < self._busy_until_us:
            return
        for goal in list(self._goals):
            change = self._next_change(goal)
            if change is None:
                self._goals.remove(goal)
                continue
            if not self._can_bear(change):
                continue
            self._submit(change)
            if self._is_patient:
                return

    def _can_bear(self, change: MembershipChange) -> bool:
        """Damage may have come since this was wanted."""
        if change.kind is ChangeKind.REMOVE:
            return self._arena.can_remove(change.node)
        return change.kind is not ChangeKind.PROMOTE_LEARNER or self._arena.can_promote(change.node)

    def _look_for_damage(self) -> None:
        for process in self._arena.present:
            if process.state is State.DAMAGED and not any(
                process.id in (goal.leaving, goal.joining) for goal in self._goals
            ):
                self.replace(process.id)

    def _next_change(self, goal: Goal) -> MembershipChange | None:
        configuration = self._site.ledger.configuration
        joining, leaving = goal.joining, goal.leaving
        if joining is not None and self._is_decayed(joining):
            goal.joining, goal.leaving = None, leaving or joining
            joining = None
        if joining is not None and joining not in configuration.voters:
            if joining in configuration.retired:
                return None
            if joining in configuration.learners:
                return MembershipChange(ChangeKind.PROMOTE_LEARNER, joining)
            return MembershipChange(ChangeKind.ADD_LEARNER, joining)
        goal.joining = None
        if leaving is not None and leaving in configuration.members:
            return MembershipChange(ChangeKind.REMOVE, leaving)
        if leaving is not None:
            self._take_away(leaving)
        return None

    def _is_decayed(self, node: NodeId) -> bool:
        """No member to count on: it may refuse to start the next time, if it did not yet."""
        process = self._arena.processes[node]
        return process.state is State.DAMAGED or bool(process.flipped_bits)

    def _take_away(self, node: NodeId) -> None:
        """A removed member stays a while and may disturb."""
        delay_us = self._chance.choice((0, 100 * MS, 2 * SECOND))
        self._site.scheduler.after(delay_us, self._arena.processes[node].leave)

    def _submit(self, change: MembershipChange) -> None:
        leader = self._arena.leader
        if leader is None:
            return
        self._site.trace.note(f"operator: {change.kind.value} {change.node} at {leader.id}")
        self._busy_until_us = self._site.scheduler.now_us + GIVE_UP_US

        def ask(member: Member, ticket: Ticket) -> None:
            try:
                member.change_membership(change, ticket)
            except ClusterError as refusal:
                self._site.trace.note("operator: refused", refusal)
                raise

        number = self._arena.ask(leader, change)

        def answered(outcome: Outcome) -> None:
            self._arena.answered(number)
            self._busy_until_us = self._site.scheduler.now_us

        leader.ask(ask, answered)
