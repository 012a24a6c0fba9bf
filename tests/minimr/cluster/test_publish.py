"""A job's output and its end are one entry of the log: both happen, or neither (DESIGN 6.9)."""

from dataclasses import dataclass, field

import msgspec
import pytest

from minigfs.config import FileSystemConfig
from minigfs.errors import FileExists, FileMissing
from minigfs.master import commands as fs_commands
from minigfs.master.machine import FileSystemMachine
from minigfs.master.name_table import BLOCK_NAMES_MAX
from minigfs.master.removal import REAP_WORK_MAX
from minimr.cluster.publish import (
    PublishCommand,
    PublishMachine,
    decode_refusal,
    encode_publish,
)
from minimr.coordinator.commands import (
    AdmitJob,
    Command,
    CommitAttempt,
    OpenTerm,
    StopJob,
    encode_command,
)
from minimr.coordinator.machine import CoordinatorMachine
from minimr.ids import AttemptId, JobId, TaskId, TaskPhase
from minimr.messages import (
    JobState,
    MapResult,
    Part,
    PublishResult,
)
from tests.minimr.coordinator.harness import make_spec

JOB = JobId("count-1")
STAGING, OUTPUT = "/_minimr-count-1", "/results/out"


@dataclass
class Masters:
    """The three machines of a master, driven as its log would."""

    files: FileSystemMachine = field(default_factory=FileSystemMachine)
    jobs: CoordinatorMachine = field(default_factory=CoordinatorMachine)
    index: int = 0

    def __post_init__(self) -> None:
        self.machine = PublishMachine(self.files, self.jobs)
        self.fs(fs_commands.Configure(1, FileSystemConfig(cluster_id="c")))
        self.job(OpenTerm(now_ms=1, term=1))

    def fs(self, command: fs_commands.Command) -> None:
        reply = fs_commands.decode_reply(self.files.apply(0, fs_commands.encode_command(command)))
        assert not isinstance(reply, fs_commands.Refused), reply

    def job(self, command: Command) -> None:
        self.jobs.apply(0, encode_command(command))

    def publish(self, *, overwrite: bool = False) -> Exception | None:
        command = PublishCommand(
            job_id=JOB, staging=STAGING, output=OUTPUT, overwrite=overwrite, now_ms=9
        )
        return decode_refusal(self.machine.apply(0, encode_publish(command)))

    def bring_job_to_publishing(self) -> None:
        spec = msgspec.structs.replace(
            make_spec(JOB, maps=1, reduces=0), output="minigfs://" + OUTPUT,
            staging="minigfs://" + STAGING, published_by_master=True,
        )  # fmt: skip
        self.job(AdmitJob(now_ms=2, spec=spec))
        mapped = AttemptId(TaskId(JOB, TaskPhase.MAP, 0), 1, 1)
        part = Part(
            name="part-m-00000", attempt_name=mapped.file_stem, size_bytes=1, xxh3="0",
            record_count=1, min_key=None, max_key=None, attempt=mapped,
        )  # fmt: skip
        self.job(
            CommitAttempt(
                now_ms=3, attempt=mapped, result=MapResult(counters={}, output=None, part=part)
            )
        )
        done = AttemptId(TaskId(JOB, TaskPhase.PUBLISH, 0), 1, 2)
        self.job(CommitAttempt(now_ms=4, attempt=done, result=PublishResult(manifest_xxh3="0")))

    def make_staging(self) -> None:
        self.fs(fs_commands.MakeDirectory(5, STAGING + "/inside", parents=True, exist_ok=True))

    def exists(self, path: str) -> bool:
        _, reply = self.files.preview(
            fs_commands.MakeDirectory(6, path, parents=False, exist_ok=False)
        )
        return isinstance(reply, fs_commands.Refused) and reply.code == "file-exists"

    @property
    def is_done(self) -> bool:
        ended = self.jobs.state.ended(JOB)
        return ended is not None and ended.state is JobState.DONE


@pytest.fixture
def masters() -> Masters:
    masters = Masters()
    masters.bring_job_to_publishing()
    return masters


def test_one_entry_moves_the_output_and_ends_the_job(masters: Masters) -> None:
    masters.make_staging()
    assert masters.publish() is None
    assert masters.exists(OUTPUT + "/inside")
    assert not masters.exists(STAGING)
    assert masters.is_done


def test_a_refused_rename_changes_neither_machine(masters: Masters) -> None:
    masters.make_staging()
    masters.fs(fs_commands.MakeDirectory(5, OUTPUT, parents=True, exist_ok=False))
    before = masters.files.state, masters.jobs.state
    refusal = masters.publish()
    assert isinstance(refusal, FileExists)
    assert "--overwrite" in str(refusal)
    assert (masters.files.state, masters.jobs.state) == before


def test_missing_staging_changes_nothing_even_when_the_old_output_was_to_go(
    masters: Masters,
) -> None:
    masters.fs(fs_commands.MakeDirectory(5, OUTPUT + "/old", parents=True, exist_ok=False))
    assert isinstance(masters.publish(overwrite=True), FileMissing)
    assert masters.exists(OUTPUT + "/old")
    assert not masters.is_done


def test_overwrite_takes_the_place_of_the_old_output(masters: Masters) -> None:
    masters.make_staging()
    masters.fs(fs_commands.MakeDirectory(5, OUTPUT + "/old", parents=True, exist_ok=False))
    assert masters.publish(overwrite=True) is None
    assert masters.exists(OUTPUT + "/inside")
    assert not masters.exists(OUTPUT + "/old")


def test_publishing_twice_changes_nothing_the_second_time(masters: Masters) -> None:
    masters.make_staging()
    masters.publish()
    before = masters.files.state, masters.jobs.state
    assert masters.publish(overwrite=True) is None
    assert masters.files.state is before[0]
    assert masters.jobs.state is before[1]


def test_a_cancelled_job_publishes_nothing(masters: Masters) -> None:
    masters.make_staging()
    masters.job(StopJob(now_ms=5, job_id=JOB))
    assert masters.publish() is None
    assert masters.exists(STAGING + "/inside")
    assert not masters.exists(OUTPUT)


def test_however_large_the_old_output_only_a_bounded_part_of_it_is_taken_apart_at_once(
    masters: Masters,
) -> None:
    masters.make_staging()
    for number in range(2 * REAP_WORK_MAX):
        path = f"{OUTPUT}/old/{number}"
        masters.fs(fs_commands.MakeDirectory(5, path, parents=True, exist_ok=False))
    before = masters.files.state
    assert masters.publish(overwrite=True) is None
    after = masters.files.state
    assert len(before.inodes) - len(after.inodes) <= REAP_WORK_MAX + BLOCK_NAMES_MAX
    assert after.directory_count == 3  # the output's parent, the output, and what was staged
    while masters.files.state.condemned:
        masters.fs(fs_commands.Reap(9))
    assert len(masters.files.state.inodes) == 5  # the roots among them
