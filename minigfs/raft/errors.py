"""What the consensus core refuses, and what its storage may answer.

::

    ClusterError
    `-- RaftRefused                   the request may be tried again, here or at another node
        |-- NotLeader                 ask the leader (``RaftNode.leader_id`` knows it, or None)
        |-- ProposalDropped           not appended, and never will be: back off, then try again
        |-- ReadDropped               too many reads wait already
        |-- MembershipRefused         a change that is wrong, or not safe yet (the message says)
        `-- TransferRefused           the target cannot lead
    DamageError
    `-- SafetyViolation               two nodes disagree about what was committed: stop at once
    LogUnavailable (LookupError)      never seen by users: the contract of ``LogStorage``
    |-- Compacted
    |-- NotYetWritten
    `-- SnapshotTemporarilyUnavailable
"""

from minigfs.errors import ClusterError, DamageError

__all__ = [
    "Compacted",
    "LogUnavailable",
    "MembershipRefused",
    "NotLeader",
    "NotYetWritten",
    "ProposalDropped",
    "RaftRefused",
    "ReadDropped",
    "SafetyViolation",
    "SnapshotTemporarilyUnavailable",
    "TransferRefused",
]


class RaftRefused(ClusterError):
    code = "raft-refused"


class NotLeader(RaftRefused):
    code = "raft-not-leader"


class ProposalDropped(RaftRefused):
    code = "raft-proposal-dropped"


class ReadDropped(RaftRefused):
    code = "raft-read-dropped"


class MembershipRefused(RaftRefused):
    code = "raft-membership-refused"


class TransferRefused(RaftRefused):
    code = "raft-transfer-refused"


class SafetyViolation(DamageError):
    code = "raft-safety-violation"


class LogUnavailable(LookupError):
    """The log cannot answer for this index; the subclass says why."""


class Compacted(LogUnavailable):
    """The index lies below the first entry: a snapshot has taken its place."""


class NotYetWritten(LogUnavailable):
    """The index lies above the last entry."""


class SnapshotTemporarilyUnavailable(LogUnavailable):
    """A snapshot is being made; ask again later."""
