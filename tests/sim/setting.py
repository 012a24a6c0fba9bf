"""What all machines of a world share, and the words for what can be the matter with one."""

import enum
from dataclasses import dataclass

from tests.sim.checks.ledger import Ledger
from tests.sim.checks.states import StateBook
from tests.sim.coverage import Coverage
from tests.sim.hosted import HostedObserver
from tests.sim.message_network import MessageNetwork
from tests.sim.options import Options
from tests.sim.scheduler import Scheduler
from tests.sim.trace import Trace

__all__ = ["CrashPoint", "Site", "State"]


class State(enum.Enum):
    DOWN = "down"
    UP = "up"
    DAMAGED = "damaged"
    """Its disk is not what it wrote; it refuses to start, and must be replaced."""
    GONE = "gone"


class CrashPoint(enum.Enum):
    """Between which steps an armed crash comes."""

    DISK = "disk"
    SEND = "send"
    APPLY = "apply"
    JOB_START = "job-start"
    JOB_END = "job-end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all processes of a world share."""

    scheduler: Scheduler
    options: Options
    trace: Trace
    coverage: Coverage
    network: MessageNetwork
    ledger: Ledger
    book: StateBook
    jobs: HostedObserver | None
