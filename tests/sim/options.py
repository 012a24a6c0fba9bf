"""What one seed's world is like: sizes, limits, weather. Every seed draws its own (swarm testing).

A run with everything switched on hides bugs that need something to be absent, so each kind of fault
is on in a part of the seeds only, and the limits are drawn from very small to harmless. A field can
be set from the command line (``--set drop_permille=0``); a shrunk run is given by that.
"""

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.sim.scheduler import MS

__all__ = ["FAULT_KINDS", "FILES", "JOBS", "KEY_VALUE", "Options", "draw_options", "with_settings"]

FAULT_KINDS = (
    "cut-one-way",
    "isolate",
    "deaf",
    "mute",
    "partition",
    "bridge",
    "swizzle",
    "noise",
    "replay",
    "kill",
    "power-loss",
    "crash-point",
    "crash-many",
    "long-outage",
    "pause",
    "slow-disk",
    "full-disk",
    "io-error",
    "bit-flip",
    "clock-jump",
    "clock-drift",
    "join",
    "remove",
    "remove-leader",
    "transfer",
)

JOBS_SHARE, FILES_SHARE = 0.1, 0.15  # of the seeds
KEY_VALUE, FILES, JOBS = "key-value", "files", "jobs"
HOSTED = ((KEY_VALUE, FILES, JOBS), (KEY_VALUE, FILES), (KEY_VALUE,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One world. Times in virtual microseconds, chances in thousandths."""

    members: int
    events: int
    machines: tuple[str, ...] = (KEY_VALUE,)
    """What else the members host beside the key-value machine: files, or files and jobs."""
    guards: bool = True
    """Pre-Vote, CheckQuorum and refusal of votes while a leader is heard."""

    # Raft's limits
    message_bytes_max: int = 1 << 20
    inflight_count_max: int = 256
    uncommitted_bytes_max: int = 1 << 20
    apply_bytes_max: int = 1 << 20
    snapshot_retry_ticks: int = 40
    commit_news_at_once: bool = True
    thrifty: bool = False
    rest_us_max: int = 20_000
    """A thrifty leader tells the rest of the group after so long at most."""

    # Storage
    segment_bytes: int = 1 << 14
    disk_bytes: int = 1 << 22
    disks_forget: bool = False
    """No disk keeps what was synced: all promises break sooner or later (tests the tests)."""
    snapshot_every_entries: int = 40
    snapshot_every_bytes: int = 1 << 20
    keep_entries: int = 10
    piece_bytes: int = 2048
    pieces_in_flight: int = 4
    session_unused_ms: int = 3_600_000

    # Timing
    tick_us: int = 50 * MS
    tick_spread_permille: int = 0
    pump_delay_us: int = 0
    disk_us_max: int = 2 * MS

    # Network
    delay_us_max: int = 5 * MS
    fifo: bool = False
    drop_permille: int = 0
    double_permille: int = 0
    late_permille: int = 0
    replay_permille: int = 0

    # Clients
    clients: int = 3
    window: int = 2
    think_us: int = 60 * MS
    request_loss_permille: int = 10
    request_late_permille: int = 0
    patience_us: int = 600 * MS
    value_bytes: int = 0

    # Faults
    calm_start: bool = True
    gap_us: int = 300 * MS
    kinds: tuple[str, ...] = FAULT_KINDS

    def __post_init__(self) -> None:
        unknown = [name for name in self.machines if name not in HOSTED[0]]
        if unknown:
            raise ValueError(f"there is no machine {unknown[0]}; there are: {', '.join(HOSTED[0])}")

    @property
    def has_jobs(self) -> bool:
        return JOBS in self.machines

    @property
    def has_files(self) -> bool:
        """Outputs of jobs are files."""
        return FILES in self.machines or self.has_jobs


def draw_options(seed: int, events: int) -> Options:
    chance = random.Random(f"options {seed}")
    choose = chance.choice
    often = chance.random() < 0.6
    message_bytes_max, inflight_count_max = choose((1, 200, 1000, 1 << 20)), choose((1, 3, 16, 256))
    # A group that sends one entry at a time must push back early, or it is busy for minutes.
    is_narrow = message_bytes_max <= 200 and inflight_count_max <= 3
    # Of its own chance: the worlds without them stay what they are.
    hosts = random.Random(f"machines {seed}").random()
    return Options(
        machines=HOSTED[0 if hosts < JOBS_SHARE else 1 if hosts < JOBS_SHARE + FILES_SHARE else 2],
        members=choose((3, 3, 3, 4, 5)),
        events=events,
        guards=chance.random() >= 0.04,
        message_bytes_max=message_bytes_max,
        inflight_count_max=inflight_count_max,
        uncommitted_bytes_max=choose((100, 2_000, 2_000 if is_narrow else 1 << 20)),
        apply_bytes_max=choose((1, 300, 1 << 20)),
        snapshot_retry_ticks=choose((20, 40, 80)),
        # Masters do without (see ``GroupNews``): next entries and heartbeats tell.
        commit_news_at_once=random.Random(f"commit news {seed}").random() < 0.3,
        thrifty=(thrift := random.Random(f"thrift {seed}")).random() < 0.7,
        rest_us_max=thrift.choice((1_000, 20_000, 20_000, 300_000)),
        segment_bytes=choose((2048, 4096, 1 << 14, 1 << 16)),
        snapshot_every_entries=choose((8, 20, 40, 80)),
        snapshot_every_bytes=choose((1500, 1 << 20, 1 << 20)),
        keep_entries=choose((0, 0, 3, 10, 20)),
        piece_bytes=choose((256, 512, 2048, 1 << 14)),
        pieces_in_flight=choose((1, 2, 4)),
        session_unused_ms=choose((600, 3_000, 3_600_000, 3_600_000)),
        tick_spread_permille=choose((0, 20, 200)),
        pump_delay_us=choose((0, 0, 300, 2_000)),
        disk_us_max=choose((300, 2_000, 2_000, 20_000)),
        delay_us_max=choose((500, 5_000, 5_000, 30_000)),
        fifo=chance.random() < 0.4,
        drop_permille=choose((0, 5, 20, 100)) if often else 0,
        double_permille=choose((0, 20, 100)) if often else 0,
        late_permille=choose((0, 10, 50)) if often else 0,
        replay_permille=choose((0, 2, 20)) if often else 0,
        clients=choose((2, 3, 4)),
        window=choose((1, 2, 3)),
        think_us=choose((20 * MS, 50 * MS, 100 * MS)),
        request_loss_permille=choose((0, 10, 80)),
        request_late_permille=choose((0, 20, 100)),
        patience_us=choose((150 * MS, 400 * MS, 1000 * MS)),
        value_bytes=choose((0, 0, 40, 400)),
        calm_start=chance.random() < 0.7,
        gap_us=choose((200 * MS, 350 * MS, 600 * MS)),
        kinds=tuple(kind for kind in FAULT_KINDS if chance.random() < 0.55),
    )


def with_settings(options: Options, settings: Mapping[str, str]) -> Options:
    """The options with some fields set from text, as on the command line."""
    changed: dict[str, object] = {}
    fields = {field.name: field for field in dataclasses.fields(Options)}
    for name, text in settings.items():
        if name not in fields:
            raise ValueError(f"there is no option {name}; there are: {', '.join(fields)}")
        before = getattr(options, name)
        if isinstance(before, bool):
            changed[name] = text.lower() in ("1", "true", "yes")
        elif isinstance(before, int):
            changed[name] = int(text)
        else:
            changed[name] = tuple(part for part in text.split(",") if part)
    return dataclasses.replace(options, **changed)  # type: ignore[arg-type]
