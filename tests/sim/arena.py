"""All machines of a world, and who can be spared."""

from minigfs.raft import Configuration, MembershipChange, NodeId
from minigfs.raft.errors import MembershipRefused
from tests.sim.process import Process
from tests.sim.setting import Site, State

__all__ = ["Arena"]


class Arena:
    """The founding members and those that came later."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self._seed = seed
        self.processes: dict[NodeId, Process] = {}
        self._asked: dict[int, tuple[Process, int, MembershipChange]] = {}
        self._asked_count = 0
        voters = tuple(NodeId(f"m{number}") for number in range(site.options.members))
        founding = Configuration(voters=voters)
        site.ledger.founded(founding)
        for voter in voters:
            self._add(voter, founding)

    def _add(self, node_id: NodeId, configuration: Configuration) -> Process:
        process = Process(self.site, node_id, configuration, f"process {self._seed} {node_id}")
        self.processes[node_id] = process
        return process

    def newcomer(self) -> Process:
        """A machine with an empty disk and an id nobody ever had."""
        process = self._add(NodeId(f"m{len(self.processes)}"), Configuration())
        self.site.scheduler.after(0, process.start)
        return process

    # Who

    @property
    def up(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_up]

    @property
    def present(self) -> list[Process]:
        """All that were not taken away, running or not."""
        return [p for p in self.processes.values() if p.state is not State.GONE]

    @property
    def leader(self) -> Process | None:
        """The one that leads in the latest term, if any believes to."""
        leading = [process for process in self.up if process.leads]
        return max(leading, key=lambda p: p.node.state.current_term, default=None)

    @property
    def members(self) -> list[NodeId]:
        return list(self.site.ledger.configuration.members)

    # What was asked of leaders

    def ask(self, leader: Process, change: MembershipChange) -> int:
        """A change is on its way to a leader, who may be paused and make it much later."""
        self._asked_count += 1
        self._asked[self._asked_count] = (leader, leader.life, change)
        return self._asked_count

    def answered(self, number: int) -> None:
        """It was refused, or stands in a log."""
        self._asked.pop(number, None)

    def _possible_configurations(self) -> list[Configuration]:
        """Those in force or in a log, and those they become by what leaders were asked for."""
        known = self.site.ledger.possible_configurations()
        possible = list(known)
        for leader, life, change in self._asked.values():
            if leader.is_up and leader.life == life:
                possible += [after for one in known if (after := _changed(one, change))]
        return possible

    # What the group can bear

    def can_spare(self, lost: NodeId) -> bool:
        """Whether every configuration that may be in force keeps a majority without ``lost``, who
        stays in it; else no fault may take that member away for good."""
        return all(
            self._has_majority(configuration.voters, lost)
            for configuration in self._possible_configurations()
        )

    def can_remove(self, leaving: NodeId) -> bool:
        """Whether the configurations without ``leaving`` have a majority that lives, of two."""
        for configuration in self._possible_configurations():
            rest = tuple(voter for voter in configuration.voters if voter != leaving)
            if len(rest) < 2 or not self._has_majority(rest, None):
                return False
        return True

    def can_promote(self, learner: NodeId) -> bool:
        """Whether the configurations in which ``learner`` votes have a majority that lives."""
        return all(
            self._has_majority((*configuration.voters, learner), None)
            for configuration in self._possible_configurations()
            if learner not in configuration.voters
        )

    def _has_majority(self, voters: tuple[NodeId, ...], lost: NodeId | None) -> bool:
        living = sum(voter != lost and self._lives(voter) for voter in voters)
        return 2 * living > len(voters)

    def _lives(self, voter: NodeId) -> bool:
        """Its disk is good: it runs, or will run again."""
        process = self.processes[voter]
        return process.state in (State.UP, State.DOWN) and not process.flipped_bits


def _changed(configuration: Configuration, change: MembershipChange) -> Configuration | None:
    try:
        return configuration.changed(change)
    except MembershipRefused:
        return None
