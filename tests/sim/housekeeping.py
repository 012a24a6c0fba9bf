"""What a leading master does by itself for the file system, in virtual time.

It sets the file system up, discards files whose writers are silent, empties the trash, takes apart
what is condemned and forgets garbage that servers have deleted. As in
``minigfs.master.housekeeping``, with one proposal at a time, and what it knows of writers is
forgotten with its tenure.
"""

import random
from collections.abc import Callable

from minigfs.config import FileSystemConfig
from minigfs.ids import FileId
from minigfs.master import commands
from minigfs.master.machine import FILE_SYSTEM_MACHINE
from minigfs.master.trash import next_to_expire
from minigfs.replication.member import Member, Outcome, Ticket
from tests.sim.coverage import Coverage
from tests.sim.process import Process
from tests.sim.scheduler import MS, Scheduler

__all__ = ["Housekeeping"]

CONFIG = FileSystemConfig(cluster_id="simulated", chunk_bytes=1 << 20, replication=2)
TURN_US = 60 * MS
SILENT_WRITER_US = 1500 * MS
FORGOTTEN_MAX = 1_000
EXPIRE_SHARE = 0.1
REAP_SHARE = 0.2  # of the turns: what is condemned shall be in snapshots too


class Housekeeping:
    """Of all members; only those that lead for certain do anything."""

    def __init__(
        self,
        scheduler: Scheduler,
        coverage: Coverage,
        processes: Callable[[], list[Process]],
        seed: str,
    ) -> None:
        self._scheduler = scheduler
        self._coverage = coverage
        self._processes = processes
        self._chance = random.Random(seed)
        self._busy: dict[str, tuple[int, int]] = {}  # (life, term) of a proposal on its way
        self._writers: dict[tuple[str, int, int], dict[FileId, int]] = {}
        scheduler.after(TURN_US, self._turn)

    def _turn(self) -> None:
        self._scheduler.after(TURN_US, self._turn)
        for process in self._processes():
            if process.leads:
                process.handle(self._look_after, process)

    def _look_after(self, process: Process) -> None:
        member = process.member
        assert member is not None
        tenure = (process.life, member.term)
        if not member.leads_for_certain or self._busy.get(process.id) == tenure:
            return
        command = self._due(process, tenure)
        if command is None:
            return
        self._busy[process.id] = tenure
        self._coverage[type(command).__name__] += 1
        encoded = commands.encode_command(command)

        def ask(member: Member, ticket: Ticket) -> None:
            member.propose(FILE_SYSTEM_MACHINE, encoded, None, ticket)

        def answered(outcome: Outcome) -> None:
            if self._busy.get(process.id) == tenure:
                del self._busy[process.id]

        process.ask_within(ask, answered)

    def _due(self, process: Process, tenure: tuple[int, int]) -> commands.Command | None:
        state, now_ms = process.hosted.files.state, process.now_ms()
        if state.config is None:
            return commands.Configure(now_ms, CONFIG)
        silent = self._silent(process, tenure)
        if silent:
            return commands.DiscardFiles(now_ms, silent)
        if state.condemned and self._chance.random() < REAP_SHARE:
            return commands.Reap(now_ms)
        if next_to_expire(state) is not None and self._chance.random() < EXPIRE_SHARE:
            return commands.ExpireTrash(now_ms, now_ms, 2)
        if state.garbage and self._chance.random() < 0.2:
            handles = tuple(sorted(state.garbage))[:FORGOTTEN_MAX]
            return commands.ForgetGarbage(now_ms, handles)
        return None

    def _silent(self, process: Process, tenure: tuple[int, int]) -> tuple[FileId, ...]:
        """Files whose writers were not heard of for long, in this tenure."""
        now_us = self._scheduler.now_us
        seen = self._writers.setdefault((process.id, *tenure), {})
        open_files = process.hosted.files.state.temporary
        for file_id in [file_id for file_id in seen if file_id not in open_files]:
            del seen[file_id]
        for file_id in sorted(open_files):
            seen.setdefault(file_id, now_us)
        return tuple(id_ for id_, since in seen.items() if now_us - since > SILENT_WRITER_US)
