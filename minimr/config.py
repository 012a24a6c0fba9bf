"""Every limit of minimr by name, with its unit and the reason for its value."""

__all__ = [
    "ATTEMPT_LIMIT",
    "DEFAULT_BACKUP_POLICY",
    "DEFAULT_MEMORY_BYTES",
    "CANCEL_WAIT_MS",
    "JOB_HISTORY_COUNT_MAX",
    "FAULTS_BEFORE_ASIDE",
    "ASIDE_MS",
    "ASIDE_MS_MAX",
    "BACKUP_LOOK_INTERVAL_MS",
    "LOCALITY_WAIT_MS",
    "LOCAL_LOG_BYTES_MAX",
    "LOCAL_PROCESS_BYTES_MIN",
    "MEMORY_BYTES_MIN",
    "MASTER_PATIENCE_MS",
    "NEWS_INTERVAL_MS",
    "SAME_RECORD_COUNT_MAX",
    "SLOWSTART_PERMILLE",
    "STATUS_WAIT_MS",
    "PING_INTERVAL_MS",
    "POLL_WAIT_MS_MAX",
    "PROGRESS_DEADLINE_MS",
    "RECOVERY_HOLD_MS",
    "RETRY_ELSEWHERE_MS",
    "TASK_END_COUNT_MAX",
    "TICK_INTERVAL_MS",
    "WORKER_DEAD_AFTER_MS",
    "WORKER_FORGOTTEN_AFTER_MS",
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

ATTEMPT_LIMIT = 4  # Hadoop's and Spark's number: one accident, one coincidence, and a spare
TASK_END_COUNT_MAX = 32  # ends of one task that are not its own fault; beyond it, it is
DEFAULT_MEMORY_BYTES = 1 * GIB  # of one executor; the paper's machines had 4 GB for everything

MEMORY_BYTES_MIN = 16 * MIB  # of one executor: a block of input, its pairs, and room to sort them

PING_INTERVAL_MS = 1_000
WORKER_DEAD_AFTER_MS = (
    5_000  # five pings missed: a long pause is survived, a dead host costs little
)
WORKER_FORGOTTEN_AFTER_MS = 600_000  # a dead worker stays in `status` long enough to be noticed
RECOVERY_HOLD_MS = (
    2_000  # two pings: a new coordinator assigns nothing before, unless all have spoken
)
TICK_INTERVAL_MS = 200  # how late a deadline may be noticed
POLL_WAIT_MS_MAX = 30_000  # a long poll is answered before middleboxes drop a silent connection

SLOWSTART_PERMILLE = 1  # of a job's maps are done before idle slots go to reduces, which wait there
LOCALITY_WAIT_MS = (
    300  # a job waits so long for a slot on a host of its input, and again for one in
)
# its rack: a second of reading over the network is saved, and a tick is 200 ms
BACKUP_LOOK_INTERVAL_MS = 100  # between two looks for slow attempts of a job; Spark's interval
DEFAULT_BACKUP_POLICY = "rate"
PROGRESS_DEADLINE_MS = 600_000  # Hadoop's task timeout: longer than any honest record takes
RETRY_ELSEWHERE_MS = 2_000  # a task that failed waits so long for another worker than that one
FAULTS_BEFORE_ASIDE = 3  # failures in a row after which a worker gets no tasks; Hadoop's number
SAME_RECORD_COUNT_MAX = 2  # failures at one record: once is an accident (MapReduce section 4.6)
ASIDE_MS = 30_000  # for so long at first, doubled each time
ASIDE_MS_MAX = 600_000

JOB_HISTORY_COUNT_MAX = 100  # finished jobs that `jobs list` still shows

MASTER_PATIENCE_MS = 60_000  # a client waits this long for masters that restart
NEWS_INTERVAL_MS = 50  # between two statuses told to one client: faster than anybody reads
STATUS_WAIT_MS = 2_000  # a client's long poll for news; an answer overdue tells of a dead leader
CANCEL_WAIT_MS = 3_000  # after Ctrl-C: two pings reach every worker; then the user's patience ends
LOCAL_PROCESS_BYTES_MIN = 64 * MIB  # light record functions do 80 MB/s; executors start in 0.5 s
LOCAL_LOG_BYTES_MAX = 64 * KIB  # of what user code printed in one executor
