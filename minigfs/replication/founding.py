"""How a member and its directory come into being, and that neither comes back without the other.

A member's promises (votes, acknowledgements) are in its log. If the log is lost, its id must never
be used again, or a vote could be given twice (``minigfs.raft``). So an id is made only together
with a log, and a directory that should hold a member and does not is refused. Two ways in:

- ``found_group``: all members of a new group (perhaps one), before any of them runs;
- ``make_newcomer``: a member of no group yet, which asks one to be taken in (``joining``).

``members.json`` beside the log says who was there at the beginning, and where, until the log itself
says so. It is written first, marked incomplete; then the logs are made; then it is marked complete,
and only then may a member start. So a founding that was cut short can be repeated: nobody has
promised anything yet. Afterwards nothing is made in its directories any more.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from minigfs.errors import CorruptLog, InvalidConfig
from minigfs.ports import RealDisk, Rng
from minigfs.raft import Configuration, NodeId
from minigfs.replication.durable_log import DurableLog, NoLog
from minigfs.replication.segments import segment_sequences
from minigfs.transport.address import Address

__all__ = [
    "MembersFile",
    "found_group",
    "holds_member",
    "load_member",
    "make_newcomer",
    "remember_members",
]

LOG_DIRECTORY = ""  # the log's folders lie in the member's directory itself
SEGMENTS_DIRECTORY = "wal"
MEMBERS_FILE = "members.json"
ONE_FILE_LOG = "wal/wal.log"  # what releases before the group of masters wrote
FORMAT = 1


class MembersFile(msgspec.Struct, frozen=True, kw_only=True):
    """``members.json``: who is there, and where; at first, who was there at the beginning."""

    member_id: NodeId  # whose directory this is
    members: dict[NodeId, Address]
    complete: bool = False
    format: int = FORMAT


def load_member(directory: Path) -> tuple[DurableLog, MembersFile] | None:
    """The member in a directory, its log open; None if none was ever made there to the end.

    Raises ``InvalidConfig`` if one was and its log is gone, ``CorruptLog`` if that is damaged.
    """
    disk = RealDisk(directory)
    _refuse_older_release(disk)
    file = _read(disk)
    try:
        log = DurableLog.open(disk, LOG_DIRECTORY)
    except NoLog:
        if file is not None and file.complete:
            raise _lost(disk, file) from None
        return None
    except CorruptLog as error:
        raise CorruptLog(f"{directory}/{error.message}") from error
    if file is not None and not file.complete:
        log.close()
        return None
    if file is None or file.member_id != log.member_id:
        log.close()
        raise InvalidConfig(
            f"{directory} holds the log of master {log.member_id}, but no {MEMBERS_FILE} that "
            "belongs to it: put the right one back"
        )
    return log, file


def holds_member(directory: Path) -> bool:
    """Whether a member lives there, whatever its state: a directory without one has lost it, or
    never had it."""
    if not directory.is_dir():
        return False
    disk = RealDisk(directory)
    return disk.exists(MEMBERS_FILE) and _has_log(disk)


def found_group(places: Sequence[tuple[Path, Address]], rng: Rng) -> None:
    """Make all members of a new group, each in its directory, with the address it will have.

    Call it before any of them is started. It may be called again, to finish what was cut short;
    once it has come to its end it makes nothing any more: a directory whose log is gone is refused
    (``InvalidConfig``), since that member cannot come back.
    """
    disks = [_disk_of(directory) for directory, _ in places]
    files = [_read(disk) for disk in disks]
    if not any(file is not None and file.complete for file in files):
        files = _begin_founding(disks, files, [address for _, address in places], rng)
    for disk, file in zip(disks, files, strict=True):
        if file is None or not _has_log(disk):
            raise _lost(disk, file)
        if not file.complete:
            _write(disk, msgspec.structs.replace(file, complete=True))


def make_newcomer(directory: Path, address: Address, rng: Rng) -> None:
    """Make a member of no group, to be added to one; again, to finish what was cut short."""
    disk = _disk_of(directory)
    _refuse_log_without_file(disk, _read(disk))
    file = _read(disk) or MembersFile(member_id=_new_id(rng), members={})
    file = msgspec.structs.replace(file, members={file.member_id: address})
    _write(disk, file)
    _make_log(disk, file, Configuration())
    _write(disk, msgspec.structs.replace(file, complete=True))


def remember_members(directory: Path, members: Mapping[NodeId, Address]) -> None:
    """Keep where the members listen now, for the next start: the log says it as well, but is not
    read before somebody leads, and to lead is to have reached the others."""
    disk = RealDisk(directory)
    file = _read(disk)
    assert file is not None
    if file.members != members:
        _write(disk, msgspec.structs.replace(file, members=dict(members)))


def _begin_founding(
    disks: Sequence[RealDisk],
    files: Sequence[MembersFile | None],
    addresses: Sequence[Address],
    rng: Rng,
) -> list[MembersFile | None]:
    """First all files, then all logs; what is left is to mark the files complete."""
    plan = list(_plan(disks, files, addresses, rng))
    for disk, file in zip(disks, plan, strict=True):
        _write(disk, file)
    for disk, file in zip(disks, plan, strict=True):
        _make_log(disk, file, Configuration(voters=tuple(sorted(file.members))))
    return list(plan)


def _plan(
    disks: Sequence[RealDisk],
    files: Sequence[MembersFile | None],
    addresses: Sequence[Address],
    rng: Rng,
) -> Iterator[MembersFile]:
    """The files of a founding. Those of one that was cut short are kept if all were written: only
    then may there be logs."""
    ids = [file.member_id for file in files if file is not None]
    plans = {tuple(sorted(file.members)) for file in files if file is not None}
    if len(ids) < len(disks) or plans != {tuple(sorted(ids))}:
        for disk in disks:
            _refuse_log_without_file(disk, None)
        ids = [_new_id(rng) for _ in disks]
    members = dict(zip(ids, addresses, strict=True))
    for member_id in ids:
        yield MembersFile(member_id=member_id, members=members)


def _make_log(disk: RealDisk, file: MembersFile, configuration: Configuration) -> None:
    if not _has_log(disk):
        DurableLog.create(
            disk, LOG_DIRECTORY, member_id=file.member_id, configuration=configuration
        ).close()


def _has_log(disk: RealDisk) -> bool:
    return bool(segment_sequences(disk, SEGMENTS_DIRECTORY))


def _new_id(rng: Rng) -> NodeId:
    return NodeId(f"{rng.random_u64():016x}")


def _disk_of(directory: Path) -> RealDisk:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    RealDisk(directory.parent).sync_dir("")
    disk = RealDisk(directory)
    _refuse_older_release(disk)
    return disk


def _read(disk: RealDisk) -> MembersFile | None:
    if not disk.exists(MEMBERS_FILE):
        return None
    with disk.open(MEMBERS_FILE) as file:
        content = file.read_at(0, file.size_bytes())
    try:
        members = msgspec.json.decode(content, type=MembersFile)
    except msgspec.MsgspecError as error:
        raise InvalidConfig(
            f"{disk.root / MEMBERS_FILE} is not what was written there ({error}): restore it"
        ) from error
    if members.format != FORMAT:
        raise InvalidConfig(
            f"{disk.root / MEMBERS_FILE} has format {members.format}, this release reads {FORMAT}: "
            "start this master with the release that made it"
        )
    return members


def _write(disk: RealDisk, file: MembersFile) -> None:
    fresh = f"{MEMBERS_FILE}.new"
    with disk.open(fresh, create=True) as new:
        new.truncate(0)
        new.write_at(0, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
        new.sync()
    disk.rename(fresh, MEMBERS_FILE)
    disk.sync_dir("")


def _refuse_older_release(disk: RealDisk) -> None:
    if disk.exists(ONE_FILE_LOG):
        raise InvalidConfig(
            f"{disk.root} was made by an older release, whose log is one file ({ONE_FILE_LOG}): "
            "copy the data out with that release, then start with an empty directory"
        )


def _refuse_log_without_file(disk: RealDisk, file: MembersFile | None) -> None:
    if file is None and _has_log(disk):
        raise InvalidConfig(
            f"{disk.root} holds a master's log, but not the {MEMBERS_FILE} that belongs to it: "
            "put that back, or choose an empty directory"
        )


def _lost(disk: RealDisk, file: MembersFile | None) -> InvalidConfig:
    who = f"master {file.member_id}" if file is not None else "a master of a group that has run"
    return InvalidConfig(
        f"{disk.root} should hold {who}, and its log is gone: it cannot come back, because what it "
        "promised is lost. Remove it from the group (admin masters remove), then start a new "
        "master there with an empty directory and --join"
    )
