"""The network between members as single messages, each at the mercy of the weather.

``tests.sim.network`` is the port's twin, with connections and bytes; this one carries what a member
hands out, encoded by the production codec, and may do to it all that Raft tolerates: lose, double,
delay, reorder, replay after seconds, cut one direction, or clog a link and let everything through
in one burst. With ``fifo`` a link keeps its order, as one TCP connection does.
"""

import random
import zlib
from collections import Counter, deque
from collections.abc import Callable

from minigfs.raft import NodeId
from minigfs.replication.peer_messages import (
    PeerMessage,
    decode_peer_message,
    encode_peer_message,
)
from tests.sim.coverage import Coverage
from tests.sim.options import Options
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.trace import Trace

__all__ = ["Link", "MessageNetwork"]

Link = tuple[NodeId, NodeId]
Frame = tuple[Link, str, bytes]

REMEMBERED = 200  # frames that may be replayed
NOISY_DROP_PERMILLE = 300


class MessageNetwork:
    """``deliver`` says whether the target took the message; ``lost`` tells a sender of a cut."""

    def __init__(
        self,
        scheduler: Scheduler,
        chance: random.Random,
        options: Options,
        trace: Trace,
        coverage: Coverage,
    ) -> None:
        self._scheduler = scheduler
        self._chance = chance
        self._options = options
        self._trace = trace
        self._coverage = coverage
        self._cuts: Counter[Link] = Counter()
        self._clogs: dict[Link, list[Frame]] = {}
        self._arrival_us: dict[Link, int] = {}
        self._past: deque[Frame] = deque(maxlen=REMEMBERED)
        self.calm = False
        self.noisy = False
        self.deliver: Callable[[NodeId, PeerMessage], bool]
        self.lost: Callable[[NodeId, NodeId], None]

    # What faults do to it

    def cut(self, link: Link) -> None:
        """Nothing arrives over this link; cuts of one link add up."""
        self._cuts[link] += 1

    def mend(self, link: Link) -> None:
        self._cuts[link] -= 1
        if self._cuts[link] <= 0:
            del self._cuts[link]

    def clog(self, link: Link) -> None:
        """What arrives waits until the link is released."""
        self._clogs.setdefault(link, [])

    def release(self, link: Link) -> None:
        for frame in self._clogs.pop(link, ()):
            self._scheduler.after(self._chance.randrange(MS), self._arrive, frame)

    def replay(self, count: int) -> None:
        """Some messages of the past arrive once more."""
        for _ in range(min(count, len(self._past))):
            self._post(self._chance.choice(self._past))
            self._coverage["replayed"] += 1

    def heal(self) -> None:
        """No cuts, no clogs, no noise from now on."""
        self.calm = True
        self._cuts.clear()
        for link in list(self._clogs):
            self.release(link)

    # What members do with it

    def send(self, message: PeerMessage) -> None:
        link = (message.source, message.target)
        frame = (link, type(message).__name__, encode_peer_message(message))
        self._past.append(frame)
        if self.calm:
            self._post(frame)
            return
        options, chance = self._options, self._chance
        drop_permille = NOISY_DROP_PERMILLE if self.noisy else options.drop_permille
        if link in self._cuts:
            self._coverage["cut off"] += 1
            if chance.random() < 0.05:
                self.lost(*link)
        elif drop_permille and chance.randrange(1000) < drop_permille:
            self._coverage["dropped"] += 1
        else:
            self._post(frame)
        if options.double_permille and chance.randrange(1000) < options.double_permille:
            self._post(frame)
            self._coverage["doubled"] += 1
        if options.replay_permille and chance.randrange(1000) < options.replay_permille:
            self.replay(1)

    def _post(self, frame: Frame) -> None:
        options, chance, link = self._options, self._chance, frame[0]
        delay_us = 100 + int(chance.random() * options.delay_us_max)
        late = options.late_permille and not self.calm
        if late and chance.randrange(1000) < options.late_permille:
            delay_us += chance.randrange(2 * SECOND)
            self._coverage["late"] += 1
        elif options.fifo:
            arrival_us = max(self._scheduler.now_us + delay_us, self._arrival_us.get(link, 0))
            self._arrival_us[link] = arrival_us
            delay_us = arrival_us - self._scheduler.now_us
        self._scheduler.after(delay_us, self._arrive, frame)

    def _arrive(self, frame: Frame) -> None:
        link, name, data = frame
        if link in self._cuts:
            self._coverage["cut off"] += 1
            return
        if link in self._clogs:
            self._clogs[link].append(frame)
            return
        message = decode_peer_message(data)
        self._trace.note(f"{link[0]}>{link[1]} {name} {zlib.crc32(data):08x}", message)
        if self.deliver(link[1], message):
            self._coverage["delivered"] += 1
            self._coverage[name] += 1
