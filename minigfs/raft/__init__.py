"""Raft as a pure core: consensus without clock, chance, disk or network.

A ``RaftNode`` is one member of a group that agrees on a log of commands, as long as a majority of
its voters is alive and connected. It computes; a *driver* does. Everything the node wants done
comes out of it as a value, so that a driver on real ports, a simulator and a test run the same
core. The paper is Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm
(Extended Version)"; "thesis" is Ongaro's dissertation. ``state`` begins with Figure 2's state in
its order and says which module holds which rule.

Inputs
======
::

    node = RaftNode(config, storage, draw_election_timeout)
    node.tick()                              time has passed; the only clock
    node.step(message)                       a message came from another member
    node.propose(data)                       leader: append a command -> LogPosition(index, term)
    node.propose_membership_change(change)   leader: add a learner, promote it, remove a member
    node.transfer_leadership(target)         leader: hand over
    node.read_index(context)                 any member: ask for a linearizable read
    node.report_unreachable(peer)            the transport lost messages to ``peer``
    node.forget_leader()                     the leader's process has ended
    node.report_snapshot(peer, delivered=)   the transfer of a snapshot ended
    node.persisted(token); node.applied(index); node.advance(ready)       what was asked is done

None blocks, and none does I/O except reading ``storage``. A refusal is one of the exceptions in
``errors`` and has changed nothing. ``SafetyViolation`` means that a member's disk lost or altered
what it had promised; the process must end.

Ready
=====
``node.ready()`` says what is due. A driver that does one thing after the other is this loop::

    while node.has_ready():
        ready = node.ready()
        transport.send(ready.messages)                 # 1 promise nothing that is not on disk
        if ready.persist is not None:
            storage.save(ready.persist)                # 2 write and sync, in full
            node.persisted(ready.persist.token)        #   its promises are in the next Ready
        if ready.restore is not None:
            machine.restore(ready.restore)             # 3 before the entries
        for entry in ready.committed_entries:
            machine.apply(entry)                       # 4 in order, once; commands only
        answer(ready.read_states, ready.reads_dropped) # 5 each when read_index is applied
        node.advance(ready)                            # 6 all done

* ``messages``: may be sent at once and in any order. A message that promises something durable is
  never in the Ready that asks for the write; it comes in a later one, after ``persisted``. So there
  is nothing to hold back, and no way to send too early.
* ``persist``: one unit of work, ``snapshot`` then ``hard_state`` then ``entries``, reported only
  when all of it is synced. Until then ``ready()`` may be called again, from other events: it gives
  messages (heartbeats do not wait for a disk) and entries to apply, but no second write; what
  arrives meanwhile is one later write. Entries overwrite stored ones from their first index on. A
  snapshot replaces the stored log. If the write fails, end the process: the node cannot go on, and
  must not report.
* ``restore``: a snapshot from the leader, durable already, takes the place of the machine's state.
* ``committed_entries``: all committed, all durable here. Kinds other than ``COMMAND`` mean nothing
  to the machine but count: report the index of the last one. ``applied`` may come later than the
  next ``ready()``, which goes on behind what was handed out.
* ``read_states``: read from the machine once it has applied ``read_index``.
* ``reads_dropped``: contexts that will get no answer; ask again.
* ``soft_state``: role or leader changed.

``advance(ready)`` equals ``persisted`` (if not called yet) and ``applied``; a driver that writes in
another thread calls those two and not ``advance``.

A command is decided when an entry is committed at the index ``propose`` returned: it is that
command if the term is the returned one, otherwise the command is lost and will never be applied.
Across leaders a retry can be applied twice; the machine tells duplicates apart (client sessions).

Storage and restart
===================
``storage`` implements ``LogStorage``: what is durable, read-only for the core. It may change only
by writes a Ready asked for, by keeping a snapshot of the own machine, and by dropping entries that
such a snapshot covers. A restart needs storage alone: load the machine from ``storage.snapshot()``
and construct the node; it begins with ``last_applied`` at that snapshot, and learns the commit
index from a leader. The founding voters all start with the same ``Configuration`` at index 0, a
member to be added later with an empty one; ``MemoryStorage`` shows both.

To make a snapshot: ``metadata = node.snapshot_metadata_at(index)`` for the applied index the
machine's copy stands at, store it durably with the data, then drop entries behind it (keep some for
members that are a little late).

Messages
========
One frozen class each, in ``messages``; ``source``, ``target``, ``term`` in all.

=============================== =======================================================
RequestVote / -Reply            5.2: candidate asks, voter answers when its vote is durable
PreVote / -Reply                thesis 9.6: would you? asked before the term is counted up
AppendEntries / -Reply          5.3: entries or a probe; success with ``match_index``, or a hint
                                where a match may be found
Heartbeat / -Reply              leader is alive, commit index, and the round of reads to confirm
InstallSnapshot / -Reply        7: metadata and the machine's data; a driver may carry the data in
                                pieces and step the message when it is whole
TimeoutNow                      thesis 3.10: take over
ReadIndex / -Reply              thesis 6.4: a member asks the leader for a read
=============================== =======================================================

Members and their ids
=====================
A change is one member (``membership``), takes effect when its entry is *appended*, and is refused
until an entry of the leader's own term is committed and while another change is not. A member joins
as a learner: it gets the log and acknowledges it, but neither votes for commits nor campaigns. That
is also how to subscribe to the log. It is promoted once it has caught up. An id that was removed is
never accepted again; a member with a wiped disk is a new member and needs a new id.
"""

from minigfs.raft.config import RaftConfig
from minigfs.raft.core import PeerStatus, RaftNode, Status
from minigfs.raft.errors import (
    MembershipRefused,
    NotLeader,
    ProposalDropped,
    RaftRefused,
    ReadDropped,
    SafetyViolation,
    TransferRefused,
)
from minigfs.raft.messages import AnyMessage
from minigfs.raft.ready import (
    NOTHING_READY,
    Persist,
    PersistToken,
    ReadState,
    Ready,
    Role,
    SoftState,
)
from minigfs.raft.records import (
    ChangeKind,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogPosition,
    MembershipChange,
    NodeId,
    Snapshot,
    SnapshotMetadata,
)
from minigfs.raft.storage import LogStorage, MemoryStorage

__all__ = [
    "NOTHING_READY",
    "AnyMessage",
    "ChangeKind",
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "LogPosition",
    "LogStorage",
    "MembershipChange",
    "MembershipRefused",
    "MemoryStorage",
    "NodeId",
    "NotLeader",
    "PeerStatus",
    "Persist",
    "PersistToken",
    "ProposalDropped",
    "RaftConfig",
    "RaftNode",
    "RaftRefused",
    "ReadDropped",
    "ReadState",
    "Ready",
    "Role",
    "SafetyViolation",
    "Snapshot",
    "SnapshotMetadata",
    "SoftState",
    "Status",
    "TransferRefused",
]
