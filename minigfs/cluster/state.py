"""What a cluster is made of, as kept in ``cluster.json``."""

from collections.abc import Iterable

import msgspec

from minigfs.cluster.layout import ClusterLayout, write_atomically
from minigfs.errors import InvalidConfig
from minigfs.transport.security import TlsFiles

__all__ = ["ClusterState", "ProcessRecord", "Rates", "load_state", "save_state"]

_FORMAT = 1

Setting = str | int | bool | None


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the cluster, running or not."""

    name: str  # unique in the cluster: "chunkserver-2"; names its directory and log
    role: str  # which ProcessKind starts it: "master", "chunkserver", ...
    stage: int = 0  # started in ascending, stopped in descending order
    address: str = ""  # fixed when the record is made; "" if the process listens nowhere known
    host: str = ""  # label for placement
    rack: str = ""
    joins: bool = False  # a master that was not there when its group was founded
    pid: int | None = None  # of the process last started for this record
    started: str | None = None  # boot and start tick: tells that process from a later one


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What work in the background may take; None: the server's own default."""

    repair_bytes_per_second: int | None = None  # copied to one chunkserver
    scrub_bytes_per_second: int | None = None  # read by one chunkserver, or more for the bound
    scrub_days: float | None = None


class ClusterState(msgspec.Struct, frozen=True, kw_only=True):
    """Settings fixed when the cluster was made, and its processes."""

    cluster_id: str
    chunk_bytes: int
    replication: int
    processes: tuple[ProcessRecord, ...] = ()
    rates: Rates = Rates()
    tls: TlsFiles | None = None  # what every server shows, and whom all trust
    masters_founded: bool = False  # their directories were made: an empty one is a lost one now
    settings: dict[str, Setting] = {}  # of other packages; minigfs keeps and never reads them
    home: str = ""  # in the file only: whose processes the pids are
    format: int = _FORMAT

    def with_role(self, role: str) -> tuple[ProcessRecord, ...]:
        return tuple(record for record in self.processes if record.role == role)

    def record(self, name: str) -> ProcessRecord:
        """The record of that name; KeyError if there is none."""
        for record in self.processes:
            if record.name == name:
                return record
        raise KeyError(name)

    def with_processes(self, changed: Iterable[ProcessRecord]) -> "ClusterState":
        """This state with records replaced by, or added under, their names; order is kept."""
        by_name = {record.name: record for record in self.processes}
        by_name.update((record.name, record) for record in changed)
        return msgspec.structs.replace(self, processes=tuple(by_name.values()))

    def without(self, name: str) -> "ClusterState":
        """This state without the record of that name."""
        left = tuple(record for record in self.processes if record.name != name)
        return msgspec.structs.replace(self, processes=left)

    def with_settings(self, changed: dict[str, Setting]) -> "ClusterState":
        return msgspec.structs.replace(self, settings={**self.settings, **changed})

    @property
    def masters(self) -> tuple[str, ...]:
        """Addresses of the masters."""
        return tuple(record.address for record in self.with_role("master"))


def load_state(layout: ClusterLayout) -> ClusterState | None:
    """The state in ``cluster.json``, or None if no cluster was ever started in this home.

    In a copy of a home no process is running: those of the original are not ours to stop.
    """
    try:
        content = layout.state_file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        state = msgspec.json.decode(content, type=ClusterState)
    except msgspec.MsgspecError as error:
        raise InvalidConfig(
            f"{layout.state_file} is not what `up` wrote ({error}): restore it, "
            f"or use another directory (--dir)"
        ) from error
    if state.format != _FORMAT:
        raise InvalidConfig(
            f"{layout.state_file} has format {state.format}, this release reads {_FORMAT}: "
            f"use the release that made it"
        )
    is_copy = state.home not in ("", str(layout.home.resolve()))
    state = msgspec.structs.replace(state, home="")
    if not is_copy:
        return state
    return state.with_processes(
        msgspec.structs.replace(record, pid=None, started=None) for record in state.processes
    )


def save_state(layout: ClusterLayout, state: ClusterState) -> None:
    """Write ``cluster.json`` and, for clients on this machine, ``client.json``."""
    here = msgspec.structs.replace(state, home=str(layout.home.resolve()))
    write_atomically(layout.state_file, _pretty(here))
    client = {
        "cluster_id": state.cluster_id,
        "masters": state.masters,
        "token_file": str(layout.token_file),
        "tls_ca": state.tls.ca if state.tls is not None else "",
    }
    write_atomically(layout.client_file, _pretty(client))


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
