"""Scripts that read like transcripts: commands, each with everything that follows from it.

A script is blocks separated by blank lines: comment lines (``#``), one command, ``----``, and the
output the command must have. Commands:

============================== ==================================================================
group SIZE [learner...]        founding voters 1..SIZE (first command)
new NAME                       a member with an empty disk
elect NAME                     it campaigns and wins; not written down
campaign NAME                  as if its election timeout had passed
tick NAME|all [COUNT]          time
propose NAME TEXT              a command
change NAME KIND WHOM          a membership change (add-learner, promote-learner, remove)
transfer NAME WHOM             hand over
read NAME CONTEXT              ask for a read
pump NAME                      one Ready: send, begin its write, apply
write NAME                     the write under way ends
deliver [WHOM]                 everything in flight (to WHOM) arrives, in order
run                            pump, write and deliver until nothing is due
lose [WHOM]                    everything in flight (to WHOM) is lost
isolate NAME, cut A B, heal    the network
crash NAME, restart NAME       memory and unfinished writes are lost
compact NAME                   snapshot the machine and drop the log behind it
expire                         nobody remembers having heard a leader lately
status                         a line for each member
============================== ==================================================================
"""

from minigfs.raft import (
    AnyMessage,
    ChangeKind,
    Entry,
    EntryKind,
    MembershipChange,
    NodeId,
    RaftRefused,
    Ready,
    Role,
)
from minigfs.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    InstallSnapshotReply,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from tests.minigfs.raft.group import ELECTION_TICKS, Group, Member

__all__ = ["Transcript", "play"]


def play(text: str) -> str:
    """The script with the output its commands really have."""
    transcript = Transcript()
    blocks = []
    for block in text.strip().split("\n\n"):
        head = block.split("\n----", 1)[0]
        commands = [line for line in head.splitlines() if not line.startswith("#")]
        if not commands:
            blocks.append(head)
            continue
        (command,) = commands
        blocks.append(f"{head}\n----\n{transcript.execute(command)}".rstrip())
    return "\n\n".join(blocks) + "\n"


class Transcript:
    """A group that writes down what happens to it."""

    def __init__(self) -> None:
        self.group = Group(0)
        self.lines: list[str] = []

    def execute(self, command: str) -> str:
        name, *words = command.split()
        self.lines = []
        try:
            getattr(self, f"do_{name}")(*words)
        except RaftRefused as refusal:
            self.lines.append(f"{type(refusal).__name__}: {refusal}")
        return "\n".join(self.lines) or "ok"

    # Commands

    def do_group(self, size: str) -> None:
        self.group = Group(int(size))

    def do_new(self, name: str) -> None:
        self.group.add(name)

    def do_elect(self, name: str) -> None:
        self.role(self.group.elect(name))

    def do_campaign(self, name: str) -> None:
        self.group[name].node.campaign()
        self.role(self.group[name])

    def do_tick(self, name: str, count: str = "1") -> None:
        members = self.group.alive if name == "all" else [self.group[name]]
        for member in members:
            before = member.node.status().role
            for _ in range(int(count)):
                member.node.tick()
            if member.node.status().role is not before:
                self.role(member)

    def do_propose(self, name: str, text: str) -> None:
        position = self.group[name].node.propose(text.encode())
        self.lines.append(f"proposed at {position.index}/{position.term}")

    def do_change(self, name: str, kind: str, whom: str) -> None:
        change = MembershipChange(ChangeKind(kind), NodeId(whom))
        position = self.group[name].node.propose_membership_change(change)
        self.lines.append(f"proposed at {position.index}/{position.term}")

    def do_transfer(self, name: str, whom: str) -> None:
        self.group[name].node.transfer_leadership(NodeId(whom))

    def do_read(self, name: str, context: str) -> None:
        self.group[name].node.read_index(context.encode())

    def do_pump(self, name: str) -> None:
        self.ready(self.group[name])

    def do_write(self, name: str) -> None:
        self.written(self.group[name])

    def do_deliver(self, whom: str | None = None) -> None:
        arriving = [m for m in self.group.in_flight if whom in (None, m.target)]
        self.group.in_flight = [m for m in self.group.in_flight if whom not in (None, m.target)]
        for message in arriving:
            self.lines.append(describe(message))
            member = self.group[message.target]
            before = member.node.status().role
            self.group.deliver(message)
            if member.node.status().role is not before:
                self.role(member)

    def do_run(self) -> None:
        while True:
            for member in self.group.alive:
                while member.node.has_ready() or member.writing:
                    self.ready(member)
                    if member.writing:
                        self.written(member)
            if not self.group.in_flight:
                return
            self.do_deliver()

    def do_lose(self, whom: str | None = None) -> None:
        for message in self.group.in_flight:
            if whom in (None, message.target):
                self.lines.append(f"lost: {describe(message)}")
        self.group.in_flight = [m for m in self.group.in_flight if whom not in (None, m.target)]

    def do_isolate(self, name: str) -> None:
        self.group.isolate(name)

    def do_cut(self, source: str, target: str) -> None:
        self.group.cut(source, target)

    def do_heal(self) -> None:
        self.group.heal()

    def do_crash(self, name: str) -> None:
        self.group.crash(name)

    def do_restart(self, name: str) -> None:
        self.group.restart(name)

    def do_compact(self, name: str) -> None:
        self.group[name].compact()

    def do_expire(self) -> None:
        for member in self.group.alive:
            member.node.state.election_elapsed_ticks = ELECTION_TICKS

    def do_status(self) -> None:
        for member in self.group.alive:
            status = member.node.status()
            self.lines.append(
                f"{member.id} {status.role.value} term={status.current_term} "
                f"vote={status.voted_for or '-'} log={status.first_index}..{status.last_index} "
                f"commit={status.commit_index} machine={b' '.join(member.machine).decode()!r}"
            )
            for peer, view in status.peers.items():
                self.lines.append(
                    f"  {peer}: {view.state.value} match={view.match_index} next={view.next_index}"
                )

    # What is written down

    def role(self, member: Member) -> None:
        status = member.node.status()
        self.lines.append(f"{member.id} is {status.role.value} in term {status.current_term}")

    def ready(self, member: Member) -> None:
        ready = member.node.ready()
        what = describe_ready(ready)
        if what:
            self.lines.append(f"{member.id} ready")
            self.lines += [f"  {line}" for line in what]
        if ready.persist is not None:
            member.writing = ready.persist
        member.apply(ready)
        self.group.post(ready.messages)
        self.group.check(member)

    def written(self, member: Member) -> None:
        before = member.node.status().role
        member.finish_write()
        self.lines.append(f"{member.id} written")
        self.group.check(member)
        if member.node.status().role is not before:
            self.role(member)


def describe_ready(ready: Ready) -> list[str]:
    lines = []
    if ready.soft_state is not None and ready.soft_state.role is not Role.PRE_CANDIDATE:
        lines.append(f"{ready.soft_state.role.value}, leader {ready.soft_state.leader_id or '-'}")
    if ready.persist is not None:
        persist = ready.persist
        if persist.snapshot is not None:
            lines.append(f"persist snapshot {persist.snapshot.metadata.last_included_index}")
        if persist.hard_state is not None:
            state = persist.hard_state
            lines.append(f"persist term={state.current_term} vote={state.voted_for or '-'}")
        lines += [f"persist {describe_entry(entry)}" for entry in persist.entries]
    lines += [f"send {describe(message)}" for message in ready.messages]
    if ready.restore is not None:
        lines.append(f"restore {ready.restore.metadata.last_included_index}")
    lines += [f"apply {describe_entry(entry)}" for entry in ready.committed_entries]
    lines += [f"read {state.context.decode()} at {state.read_index}" for state in ready.read_states]
    lines += [f"dropped {context.decode()}" for context in ready.reads_dropped]
    return lines


def describe_entry(entry: Entry) -> str:
    where = f"{entry.index}/{entry.term}"
    match entry.kind:
        case EntryKind.COMMAND:
            return f"{where} {entry.data.decode()!r}"
        case EntryKind.NOOP:
            return f"{where} no-op"
        case EntryKind.CONFIGURATION:
            assert entry.configuration is not None
            voters, learners = entry.configuration.voters, entry.configuration.learners
            suffix = f" learners {','.join(learners)}" if learners else ""
            return f"{where} voters {','.join(voters)}{suffix}"


def describe(message: AnyMessage) -> str:
    name = type(message).__name__
    return f"{message.source}->{message.target} {name} term={message.term}{details(message)}"


def details(message: AnyMessage) -> str:
    match message:
        case AppendEntries():
            entries = ", ".join(describe_entry(entry) for entry in message.entries)
            return (
                f" prev={message.prev_log_index}/{message.prev_log_term} [{entries}] "
                f"commit={message.leader_commit}"
            )
        case AppendEntriesReply(success=True):
            return f" match={message.match_index}"
        case AppendEntriesReply():
            return (
                f" refused prev={message.prev_log_index} "
                f"hint={message.hint_index}/{message.hint_term}"
            )
        case RequestVote() | PreVote():
            forced = isinstance(message, RequestVote) and message.leadership_transfer
            transfer = " transfer" if forced else ""
            return f" last={message.last_log_index}/{message.last_log_term}{transfer}"
        case RequestVoteReply() | PreVoteReply():
            return " granted" if message.vote_granted else " refused"
        case Heartbeat():
            return f" commit={message.commit_index} round={message.read_sequence}"
        case HeartbeatReply():
            return f" round={message.read_sequence}"
        case InstallSnapshot():
            return f" last={message.snapshot.metadata.last_included_index}"
        case InstallSnapshotReply():
            return f" match={message.match_index}"
        case ReadIndex():
            return f" read={message.sequence}"
        case ReadIndexReply():
            return f" read={message.sequence} index={message.read_index}"
        case TimeoutNow():
            return ""
