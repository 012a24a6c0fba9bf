"""Requests about the tree beyond single changes of it: transactions, clones, the trash, policies.

As in ``messages``, whose rules for paths, times and tags hold here.
"""

from minigfs.ids import FileId
from minigfs.master.messages import (
    Change,
    EntryKind,
    FileStatus,
    MakeDirectory,
    PublishFile,
    Remove,
    Rename,
)
from minigfs.transport.messages import Empty, Message, Request

__all__ = [
    "CHUNKS_PER_STEP_MAX",
    "CLONE_WAIT_MS",
    "AwaitClone",
    "Clone",
    "Cloned",
    "Condition",
    "GetPolicy",
    "ListTrash",
    "PolicyReport",
    "SetPolicy",
    "SetReplication",
    "TakeToken",
    "Token",
    "Transact",
    "Transacted",
    "TrashEntry",
    "TrashListing",
    "Undelete",
]


CHUNKS_PER_STEP_MAX = 1_000  # with one for each file: a few milliseconds of every master
CLONE_WAIT_MS = 3_000  # less than a client waits for an answer


class Condition(Message, frozen=True):
    """What must be at a path: nothing (``file_id`` 0), anything (None), or the very thing that had
    this status."""

    path: str
    file_id: FileId | None = None
    modified_ms: int = 0
    size_bytes: int = 0


class SetPolicy(Change[Empty], frozen=True, tag="fs.set-policy"):
    """What a directory asks for what is made or removed below it; None leaves it, -1 unsets it."""

    path: str
    replication: int | None = None
    retention_ms: int | None = None  # 0: what is removed is gone at once


class Transacted(Message, frozen=True):
    published: tuple[FileStatus, ...]  # of the changes that are one, in order


class Transact(Change[Transacted], frozen=True, tag="fs.transact"):
    """Several changes by one atomic change, each in the tree that those before it left.

    ``PreconditionFailed`` unless all conditions hold before the first; ``WriterFenced`` if a later
    token of the directory ``fence_path`` was taken; what one change is refused for refuses all.
    The changes' own origins are not looked at.
    """

    changes: tuple[MakeDirectory | PublishFile | Rename | Remove | SetPolicy, ...]
    conditions: tuple[Condition, ...] = ()
    fence_path: str = ""  # "" for none
    fence_token: int = 0


class Token(Message, frozen=True):
    token: int


class TakeToken(Change[Token], frozen=True, tag="fs.take-token"):
    """A directory's next fencing token; all tokens taken of it before hold no more."""

    path: str


class Cloned(Message, frozen=True):
    copy_id: FileId
    is_done: bool  # else ask ``AwaitClone``


class Clone(Change[Cloned], frozen=True, tag="fs.clone"):
    """Copy a file or a tree, as it is at one moment, without moving its bytes.

    ``replace`` lets a file take the place of a file; a directory never replaces anything. Parents
    of the target are not made. While a large tree is cloned nothing in it can be changed: ``Busy``.
    """

    source: str
    target: str
    replace: bool = False


class AwaitClone(Request[Cloned], frozen=True, tag="fs.await-clone"):
    """Answers when the clone is done, or after a moment that it is not; raises why it failed."""

    copy_id: FileId


class Undelete(Change[Empty], frozen=True, tag="fs.undelete"):
    """Bring back what was removed last from a path, to ``target``, whose parents are made."""

    path: str
    target: str


class TrashEntry(Message, frozen=True):
    path: str  # where it was
    trash_path: str  # where it can be read, and removed for good
    kind: EntryKind
    file_count: int  # itself, if it is a file
    size_bytes: int  # of a file; 0 for a directory
    removed_ms: int
    kept_until_ms: int


class TrashListing(Message, frozen=True):
    entries: tuple[TrashEntry, ...]
    more: bool
    next_after: str  # where to go on, if there is more


class ListTrash(Request[TrashListing], frozen=True, tag="fs.list-trash"):
    """What was removed at or below ``path``, what expires first before the others."""

    path: str = "/"
    start_after: str = ""
    limit: int = 4_000
    stale_ok: bool = False


class PolicyReport(Message, frozen=True):
    """What holds at a path, and what of it the directory there says itself (else None)."""

    path: str
    replication: int
    retention_ms: int
    own_replication: int | None
    own_retention_ms: int | None


class GetPolicy(Request[PolicyReport], frozen=True, tag="fs.policy"):
    path: str
    stale_ok: bool = False


class SetReplication(Change[Empty], frozen=True, tag="fs.set-replication"):
    """The goal of files that are there. Together they have few files and chunks, or it is one file,
    of which a number of chunks from ``first_index`` on is done: ``CHUNKS_PER_STEP_MAX`` of each."""

    paths: tuple[str, ...]
    replication: int
    first_index: int = 0
