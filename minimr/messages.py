"""What clients, workers and the coordinator say to each other. Tags never change their meaning."""

from enum import StrEnum

from minigfs.transport.messages import Empty, Message, Request
from minimr.config import DEFAULT_BACKUP_POLICY, PROGRESS_DEADLINE_MS
from minimr.ids import AttemptId, JobId, TaskId, WorkerId

__all__ = [
    "Amount",
    "Assignment",
    "AttemptResult",
    "BroadcastFile",
    "CancelJob",
    "Failure",
    "FailureKind",
    "FileRange",
    "GetJob",
    "GetJobSpec",
    "GetMapOutputs",
    "HelloWorker",
    "HotKey",
    "JobList",
    "JobSpec",
    "JobState",
    "JobStatus",
    "ListJobs",
    "ListWorkers",
    "MapAssignment",
    "MapOutput",
    "MapOutputNews",
    "MapResult",
    "Nearness",
    "NewsHeard",
    "Part",
    "PingReply",
    "PingWorker",
    "PollTask",
    "Progress",
    "PublishAssignment",
    "PublishResult",
    "Receipt",
    "ReduceAssignment",
    "ReduceResult",
    "ReportFailure",
    "ReportSuccess",
    "ReportTasks",
    "Skew",
    "Split",
    "SplitPoint",
    "SubmitJob",
    "TaskOffer",
    "WorkerInfo",
    "WorkerList",
    "WorkerReport",
]


class FileRange(Message, frozen=True):
    """Bytes ``[start, start + length)`` of a file; records that *begin* in it belong to it."""

    url: str
    start: int
    length: int
    file_bytes: int
    compression: str = ""  # "gzip", "zstd", "bz2", "xz"; a compressed file is one whole range
    name_start: int = 0  # where in ``url`` the file's path below its input begins


class Split(Message, frozen=True):
    """The input of one map task: one range of a big file, or several small files."""

    index: int
    ranges: tuple[FileRange, ...]
    size_bytes: int
    hosts: tuple[str, ...] = ()  # where most of its bytes are stored, best first


class SplitPoint(Message, frozen=True, array_like=True):
    """Where a range of keys begins (`minimr.plan.range_partition`).

    ``key`` is in its ordered form; of its own values, the first ``share`` in 65,536 (by map task)
    are before the point.
    """

    key: bytes
    share: int


class BroadcastFile(Message, frozen=True, array_like=True):
    """A file that tasks can read by its name (`minimr.broadcast`)."""

    name: str
    url: str
    xxh3: str  # hex xxh3-64 of its bytes


class JobSpec(Message, frozen=True):
    """All that is fixed when a job is submitted."""

    job_id: JobId
    name: str
    code: bytes  # cloudpickle of a minimr.Job; only executors unpickle it
    inputs: tuple[str, ...]
    output: str  # absolute URL of the output directory
    staging: str  # absolute URL beside it, hidden by its leading "_": attempts write below it
    splits: tuple[Split, ...]
    partition_count: int  # 0: map-only
    overwrite: bool = False
    published_by_master: bool = (
        False  # output on minigfs and coordinator in its master (DESIGN 6.9)
    )
    settings: tuple[tuple[str, str], ...] = ()
    memory_bytes: int = 1 << 30  # of one executor
    attempt_limit: int = 4
    submitted_ms: int = 0
    code_fingerprint: str = ""
    input_fingerprint: str = ""
    split_points: tuple[SplitPoint, ...] = ()  # of a job with a range partition, increasing
    files: tuple[BroadcastFile, ...] = ()
    backup_policy: str = DEFAULT_BACKUP_POLICY  # a name in `minimr.coordinator.backups.POLICIES`
    progress_deadline_ms: int = (
        PROGRESS_DEADLINE_MS  # an attempt without any progress for so long is given up
    )
    max_bad: int = 0  # records that may be set aside; 0: the first bad one fails the job
    slowstart_permille: int = 1000  # of the maps are done before slots that are free go to reduces


class MapOutput(Message, frozen=True):
    """A committed map attempt's segment and who serves it."""

    map_index: int
    attempt: AttemptId
    worker_id: WorkerId
    address: str  # of the worker's segment server; "" when everything is one process
    host: str
    path: str  # on that host
    size_bytes: int
    record_count: int
    digest: str
    frame_bytes: int = 0
    frame_sum: int = 0  # of its frames' xxh3, modulo 2^64
    start: int = 0  # in the file, which it may share
    shared: str = ""  # the file's stem, if it is another attempt's

    @property
    def file_stem(self) -> str:
        """Which of the worker's files it is in."""
        return self.shared or self.attempt.file_stem


class Part(Message, frozen=True):
    """One part file of the output, as the manifest lists it."""

    name: str  # "part-r-00000"
    attempt_name: str  # of the attempt's own file: see `minimr.plan.naming.attempts_url`
    size_bytes: int
    xxh3: str  # hex xxh3-64 of the file's bytes
    record_count: int
    min_key: str | None  # repr, shortened
    max_key: str | None
    attempt: AttemptId


class Nearness(StrEnum):
    """Where a map task's input lies, as seen from its worker."""

    LOCAL = "local"  # on the same host
    RACK = "rack"
    REMOTE = "remote"


class Amount(Message, frozen=True):
    """``sum`` does not depend on the order of what is summed; see `minimr.coordinator.receipt`."""

    records: int = 0
    bytes: int = 0
    sum: int = 0


class Receipt(Message, frozen=True):
    """What went into a job, was handed on by its maps, was read by its reduces, and came out."""

    input: Amount
    map_output: Amount
    reduce_input: Amount
    output: Amount


class MapAssignment(Message, frozen=True, tag="map"):
    attempt: AttemptId
    split: Split
    partition_count: int
    nearness: Nearness = Nearness.REMOTE
    suspects: tuple[str, ...] = ()  # marks of records at which an attempt has died before
    skips: tuple[str, ...] = ()  # marks of records that go to quarantine without being mapped


class ReduceAssignment(Message, frozen=True, tag="reduce"):
    """``map_outputs`` are those that are there, if they are few; the others are asked for
    (`GetMapOutputs`), as they come."""

    attempt: AttemptId
    partition: int
    map_count: int
    map_outputs: tuple[MapOutput, ...] = ()


class PublishAssignment(Message, frozen=True, tag="publish"):
    """Move the committed parts to their names, write the manifest, and (unless the master does it)
    let the output appear."""

    attempt: AttemptId
    parts: tuple[Part, ...]
    counters: dict[str, int]
    sides: tuple[Part, ...] = ()
    receipt: Receipt | None = None


Assignment = MapAssignment | ReduceAssignment | PublishAssignment


class MapResult(Message, frozen=True, tag="map"):
    counters: dict[str, int]
    output: MapOutput | None  # None for map-only
    part: Part | None  # of a map-only job
    sides: tuple[Part, ...] = ()  # side outputs and the quarantine


class HotKey(Message, frozen=True, array_like=True):
    """A frequent key (its repr, shortened) and how many pairs of it came to its reduce."""

    key: str
    record_count: int


class ReduceResult(Message, frozen=True, tag="reduce"):
    counters: dict[str, int]
    part: Part
    sides: tuple[Part, ...] = ()
    received: Amount = Amount()
    hot_keys: tuple[HotKey, ...] = ()


class Skew(Message, frozen=True):
    """How a job's pairs, combined as far as they were, are spread over partitions and keys."""

    hot_keys: tuple[HotKey, ...]  # most frequent first; keys of one pair are none
    record_count: int
    partition_count: int
    largest_partition: int
    largest_record_count: int


class PublishResult(Message, frozen=True, tag="publish"):
    manifest_xxh3: str
    parts: tuple[Part, ...] = ()  # that have other bytes now than their tasks wrote


AttemptResult = MapResult | ReduceResult | PublishResult


class FailureKind(StrEnum):
    USER = "user"  # the user's function raised
    INPUT = "input"
    OUTPUT = "output"  # bad record for the output format, or the file system refused
    FETCH = "fetch"  # map outputs missing or damaged: not this attempt's fault
    DIED = "died"  # the executor was killed: signal, memory
    CANCELLED = "cancelled"
    INTERNAL = "internal"
    HUNG = "hung"  # no progress for the job's deadline
    NO_SPACE = "no-space"  # the worker's disk is full: it is set aside


class Failure(Message, frozen=True):
    kind: FailureKind
    error: str  # one line: what, where, what to do
    traceback: str = ""  # user frames only
    record: str = ""  # repr of the record or key, shortened
    url: str = ""
    offset: int = -1  # byte offset of the record in the (unpacked) file; -1 unknown
    lost_outputs: tuple[AttemptId, ...] = ()  # map attempts, of a FETCH failure
    is_final: bool = False  # it would happen again: the task is not tried once more
    mark: str = ""  # the record at which the executor died: see `minimr.tasks.gasp`
    damaged_count: int = 0  # of the lost map outputs, those that were there with a wrong sum


class Progress(Message, frozen=True, array_like=True):
    """``steps`` grows with anything that the attempt does; ``elapsed_ms`` since it began here,
    ``worked_ms`` since its executor had started and could begin: 0 before, negative if unknown."""

    attempt: AttemptId
    done_bytes: int
    total_bytes: int
    steps: int = 0
    elapsed_ms: int = 0
    worked_ms: int = -1


class WorkerInfo(Message, frozen=True):
    """``incarnation`` is new at each start of the process: what ran before is gone, but segments
    on disk (``stored``: stems of their files) are still served. ``unfit`` says why it takes no task
    at the moment (its disk is full); "" when it does."""

    worker_id: WorkerId
    incarnation: str
    address: str
    host: str
    pid: int
    executor_pid: int
    directory: str
    stored: tuple[str, ...] = ()
    rack: str = ""
    unfit: str = ""


class JobState(StrEnum):
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class JobStatus(Message, frozen=True):
    """One job as ``jobs show`` and the progress bars see it. ``version`` grows with each change."""

    job_id: JobId
    name: str
    state: JobState
    version: int
    output: str
    map_count: int
    maps_done: int
    reduce_count: int
    reduces_done: int
    input_bytes: int
    input_bytes_done: int
    shuffle_bytes: int
    shuffle_bytes_done: int
    counters: dict[str, int]
    phase_ms: dict[str, int]  # "map", "reduce", "publish": they follow each other, so they add up
    submitted_ms: int
    ended_ms: int  # 0 while it runs
    failure: Failure | None = None
    failed_task: TaskId | None = None
    parts: tuple[Part, ...] = ()
    skew: Skew | None = None  # of a job that is done
    waiting: str = ""  # why nothing of it runs, if that is not for lack of a free slot


class JobList(Message, frozen=True):
    jobs: tuple[JobStatus, ...]


class SubmitJob(Request[JobStatus], frozen=True, tag="job.submit"):
    """Submitting the same job id again answers with its status."""

    spec: JobSpec


class GetJob(Request[JobStatus], frozen=True, tag="job.get"):
    """Answers when the status is newer than ``known_version``, or after ``wait_ms``."""

    job_id: JobId
    known_version: int = -1
    wait_ms: int = 0


class ListJobs(Request[JobList], frozen=True, tag="job.list"):
    pass


class CancelJob(Request[JobStatus], frozen=True, tag="job.cancel"):
    job_id: JobId


class GetJobSpec(Request[JobSpec], frozen=True, tag="job.spec"):
    job_id: JobId


class TaskOffer(Message, frozen=True):
    """``more`` are to be run after ``assignment``, one after the other: short ones only."""

    assignment: Assignment | None
    known: bool = True  # False: the coordinator restarted or had given this worker up; say hello
    more: tuple[Assignment, ...] = ()


class PingReply(Message, frozen=True):
    known: bool
    cancel: tuple[AttemptId, ...]  # running attempts nobody needs any more
    finished_jobs: tuple[JobId, ...] = ()  # whose segments can go
    masters: tuple[str, ...] = ()  # where all of them listen now


class HelloWorker(Request[PingReply], frozen=True, tag="work.hello"):
    """A worker names itself: at its start, and whenever an answer says ``known=False``.

    ``running`` are the attempts it is busy with; a new coordinator adopts them.
    """

    worker: WorkerInfo
    running: tuple[Progress, ...] = ()
    stored_jobs: tuple[JobId, ...] = ()


class PollTask(Request[TaskOffer], frozen=True, tag="work.poll"):
    """A free slot asks for work; answers when there is some, or after ``wait_ms``.

    It names the worker like ``HelloWorker`` and says that nothing runs on it: an attempt that was
    offered before and whose end was not reported counts as lost. It gets ``most`` attempts at most.
    A worker that ``said_hello`` in this life leaves out what it has stored; a coordinator that does
    not know it asks for another hello.
    """

    worker: WorkerInfo
    wait_ms: int = 10_000
    most: int = 1
    said_hello: bool = False


class PingWorker(Request[PingReply], frozen=True, tag="work.ping"):
    """Every second (dead after 5 s). If there is nothing to tell, the answer may wait ``wait_ms``
    for something."""

    worker_id: WorkerId
    incarnation: str
    executor_pid: int
    running: tuple[Progress, ...]
    stored_jobs: tuple[JobId, ...] = ()
    wait_ms: int = 0


class NewsHeard(Message, frozen=True, array_like=True):
    """How much of the news of a job's map outputs has been heard; ``term``: from which leader."""

    term: int = 0
    count: int = 0


class MapOutputNews(Message, frozen=True):
    """``outputs`` are new, or at a new place; those of the maps ``gone`` are no more, and will come
    again. ``is_wanted`` False: nobody needs the attempt that asked."""

    heard: NewsHeard
    outputs: tuple[MapOutput, ...] = ()
    gone: tuple[int, ...] = ()
    is_wanted: bool = True


class GetMapOutputs(Request[MapOutputNews], frozen=True, tag="work.outputs"):
    """A reduce attempt that waits for map outputs; answers when there is news, or after
    ``wait_ms``. ``missed`` are map attempts whose outputs it could not fetch, ``damaged_count`` of
    them for a wrong sum: those maps run again."""

    worker_id: WorkerId
    attempt: AttemptId
    heard: NewsHeard = NewsHeard()
    wait_ms: int = 0
    missed: tuple[AttemptId, ...] = ()
    damaged_count: int = 0


class ReportSuccess(Request[Empty], frozen=True, tag="work.done"):
    """``worked_ms``: as in `Progress`, how long the attempt took without its executor's start."""

    worker_id: WorkerId
    attempt: AttemptId
    result: AttemptResult
    worked_ms: int = -1


class ReportFailure(Request[Empty], frozen=True, tag="work.failed"):
    worker_id: WorkerId
    attempt: AttemptId
    failure: Failure


class ReportTasks(Request[Empty], frozen=True, tag="work.ended"):
    """Ends of attempts that were offered together. Those ``returned`` had better run elsewhere, as
    they would wait here for one that takes long, or were cancelled."""

    worker_id: WorkerId
    ends: tuple[ReportSuccess | ReportFailure, ...]
    returned: tuple[AttemptId, ...] = ()


class WorkerReport(Message, frozen=True):
    id: WorkerId
    pid: int
    executor_pid: int
    host: str
    dir: str
    alive: bool
    task: str  # attempt id, "" when idle
    rack: str = ""
    address: str = ""
    aside: str = ""  # why it gets no tasks at the moment


class WorkerList(Message, frozen=True):
    workers: tuple[WorkerReport, ...]


class ListWorkers(Request[WorkerList], frozen=True, tag="work.list"):
    pass
