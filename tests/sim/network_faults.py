"""What happens to the network: parts of it stop for a while, and come back."""

import random
from collections.abc import Sequence

from minigfs.raft import NodeId
from tests.sim.arena import Arena
from tests.sim.message_network import Link
from tests.sim.scheduler import MS, SECOND

__all__ = ["NetworkFaults"]


class NetworkFaults:
    """Each method strikes once, says whether it could, and plans its own end."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._network = arena.site.network

    def _duration_us(self, chance: random.Random) -> int:
        return chance.choice((100, 400, 1000, 2500)) * MS + chance.randrange(300 * MS)

    def _ids(self) -> list[NodeId]:
        return [process.id for process in self._arena.present]

    def _victim(self, chance: random.Random) -> NodeId:
        """Often the leader: there it hurts."""
        leader = self._arena.leader
        if leader is not None and chance.random() < 0.5:
            return leader.id
        return chance.choice(self._ids())

    def _cut(self, links: Sequence[Link], chance: random.Random) -> bool:
        for link in links:
            self._network.cut(link)
        names = " ".join(f"{source}>{target}" for source, target in links)
        self._arena.site.trace.note(f"cut {names}")
        self._arena.site.scheduler.after(self._duration_us(chance), self._mend, links)
        return True

    def _mend(self, links: Sequence[Link]) -> None:
        for link in links:
            self._network.mend(link)

    def cut_one_way(self, chance: random.Random) -> bool:
        source, target = chance.sample(self._ids(), 2)
        return self._cut([(source, target)], chance)

    def isolate(self, chance: random.Random) -> bool:
        victim = self._victim(chance)
        others = [other for other in self._ids() if other != victim]
        links = [(victim, other) for other in others] + [(other, victim) for other in others]
        return self._cut(links, chance)

    def deafen(self, chance: random.Random) -> bool:
        """It speaks and hears nobody."""
        victim = self._victim(chance)
        return self._cut([(o, victim) for o in self._ids() if o != victim], chance)

    def mute(self, chance: random.Random) -> bool:
        """It hears and nobody hears it."""
        victim = self._victim(chance)
        return self._cut([(victim, o) for o in self._ids() if o != victim], chance)

    def partition(self, chance: random.Random) -> bool:
        ids = self._ids()
        chance.shuffle(ids)
        middle = chance.randrange(1, len(ids))
        links = [(one, other) for one in ids[:middle] for other in ids[middle:]]
        return self._cut(links + [(other, one) for one, other in links], chance)

    def bridge(self, chance: random.Random) -> bool:
        """Two halves, and one member that reaches both: reachability is not transitive."""
        ids = self._ids()
        chance.shuffle(ids)
        between, rest = ids[0], ids[1:]
        if len(rest) < 2:
            return False
        del between
        middle = len(rest) // 2
        links = [(one, other) for one in rest[:middle] for other in rest[middle:]]
        return self._cut(links + [(other, one) for one, other in links], chance)

    def swizzle(self, chance: random.Random) -> bool:
        """Links of some members stop one by one and come back in another order (FoundationDB)."""
        ids = self._ids()
        victims = chance.sample(ids, chance.randrange(1, len(ids)))
        links = [(one, other) for one in victims for other in ids if one != other]
        links += [(other, one) for one, other in links if other not in victims]
        scheduler = self._arena.site.scheduler
        chance.shuffle(links)
        for place, link in enumerate(links):
            scheduler.after(place * 30 * MS, self._network.clog, link)
        chance.shuffle(links)
        start_us = len(links) * 30 * MS + chance.randrange(SECOND)
        for place, link in enumerate(links):
            scheduler.after(start_us + place * 30 * MS, self._network.release, link)
        return True

    def noise(self, chance: random.Random) -> bool:
        """A third of all messages is lost for a while."""
        self._network.noisy = True
        self._arena.site.scheduler.after(self._duration_us(chance), self._silence)
        return True

    def _silence(self) -> None:
        self._network.noisy = False

    def replay(self, chance: random.Random) -> bool:
        self._network.replay(chance.randrange(1, 30))
        return True
