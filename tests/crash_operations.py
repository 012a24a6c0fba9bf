"""What a client of its own process does while something crashes, and what must come of it.

Each operation is prepared by the test, run by a process that may be killed with the others, and
checked by the test: all of it happened, or nothing, and all of it if the process said so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from minigfs.client.client import MinigfsClient
from minigfs.client.config import ClientConfig

__all__ = ["CHUNK_BYTES", "OPERATIONS", "Operation", "content_of", "run_operation"]

CHUNK_BYTES = 128 * 1024
BEFORE = b"before " * 20_000  # more than a chunk
AFTER = b"after " * 50_000  # more than two
RECORDS = tuple(b"<record %d>" % number * 700 for number in range(4))
TRANSACTION_FILES = 100

Said = list[str]  # what the process said that it has done


@dataclass(frozen=True)
class Operation:
    prepare: Callable[[MinigfsClient, str], None]
    run: Callable[[MinigfsClient, str, Connection], None]
    check: Callable[[MinigfsClient, str, Said], None]


def run_operation(home: Path, name: str, root: str, connection: Connection) -> None:
    """The process. It says "done" last."""
    client = MinigfsClient(ClientConfig.discover(home=str(home)))
    OPERATIONS[name].run(client, root, connection)
    connection.send("done")


def content_of(client: MinigfsClient, path: str) -> bytes:
    with client.open_reader(path) as reader:
        return reader.read_at(0, reader.size_bytes)


def _write(client: MinigfsClient, path: str, content: bytes) -> None:
    with client.open_writer(path) as writer:
        writer.write(content)


def _paths(client: MinigfsClient, path: str) -> list[str]:
    found = client.find(path) if client.exists(path) else ()
    return [status.path.removeprefix(path) for status in found]


# Each: prepare, run, check.


def _nothing(client: MinigfsClient, root: str) -> None:
    client.make_directory(root)


def _write_file(client: MinigfsClient, root: str, _: Connection) -> None:
    _write(client, f"{root}/file", AFTER)


def _file_is_whole(client: MinigfsClient, root: str, said: Said) -> None:
    assert _paths(client, root) in ([], ["/file"])
    assert client.exists(f"{root}/file") or "done" not in said
    if client.exists(f"{root}/file"):
        assert content_of(client, f"{root}/file") == AFTER


def _one_file(client: MinigfsClient, root: str) -> None:
    _write(client, f"{root}/file", BEFORE)


def _replace(client: MinigfsClient, root: str, _: Connection) -> None:
    _write(client, f"{root}/file", AFTER)


def _is_old_or_new(client: MinigfsClient, root: str, said: Said) -> None:
    allowed = (AFTER,) if "done" in said else (BEFORE, AFTER)
    assert content_of(client, f"{root}/file") in allowed


def _update(client: MinigfsClient, root: str, _: Connection) -> None:
    with client.open_for_update(f"{root}/file") as file:
        file.write_at(10, b"x" * CHUNK_BYTES)


def _is_updated_or_not(client: MinigfsClient, root: str, said: Said) -> None:
    updated = BEFORE[:10] + b"x" * CHUNK_BYTES + BEFORE[10 + CHUNK_BYTES :]
    allowed = (updated,) if "done" in said else (BEFORE, updated)
    assert content_of(client, f"{root}/file") in allowed


def _append(client: MinigfsClient, root: str, connection: Connection) -> None:
    with client.open_appender(f"{root}/file") as appender:
        for number, record in enumerate(RECORDS):
            appender.append(record)
            connection.send(f"record {number}")


def _append_when_told(client: MinigfsClient, root: str, connection: Connection) -> None:
    """Wait before the second record: a member of the open chunk is killed meanwhile."""
    with client.open_appender(f"{root}/file") as appender:
        for number, record in enumerate(RECORDS):
            appender.append(record)
            connection.send(f"record {number}")
            if number == 0:
                connection.send("waiting")
                connection.recv()


def _records_are_whole(client: MinigfsClient, root: str, said: Said) -> None:
    content = content_of(client, f"{root}/file").removeprefix(BEFORE)
    counts = [count for count in range(len(RECORDS) + 1) if content == b"".join(RECORDS[:count])]
    assert counts, "torn, repeated or out of order"
    assert counts[0] >= sum(word.startswith("record") for word in said)


def _tree(client: MinigfsClient, root: str) -> None:
    for name in ("a", "b/c", "b/d"):
        _write(client, f"{root}/tree/{name}", BEFORE)
    client.append(f"{root}/tree/a", RECORDS[0])


def _clone(client: MinigfsClient, root: str, _: Connection) -> None:
    client.clone(f"{root}/tree", f"{root}/copy")
    client.append(f"{root}/tree/a", RECORDS[1])


def _clone_is_whole(client: MinigfsClient, root: str, said: Said) -> None:
    copied = _paths(client, f"{root}/copy")
    assert copied in ([], _paths(client, f"{root}/tree"))
    assert copied or "done" not in said
    if copied:
        assert content_of(client, f"{root}/copy/a") == BEFORE + RECORDS[0]
        assert content_of(client, f"{root}/copy/b/d") == BEFORE
    grown = [BEFORE + RECORDS[0], BEFORE + RECORDS[0] + RECORDS[1]]
    assert content_of(client, f"{root}/tree/a") in grown[-1 if "done" in said else 0 :]


def _delete(client: MinigfsClient, root: str, _: Connection) -> None:
    client.remove(f"{root}/tree", recursive=True, now=True)


def _is_there_or_gone(client: MinigfsClient, root: str, said: Said) -> None:
    left = _paths(client, f"{root}/tree")
    assert left in ([], ["/a", "/b", "/b/c", "/b/d"])
    assert not left or "done" not in said
    if left:
        assert content_of(client, f"{root}/tree/b/c") == BEFORE
        client.remove(f"{root}/tree", recursive=True, now=True)


def _transact(client: MinigfsClient, root: str, _: Connection) -> None:
    with client.transaction() as change:
        for number in range(TRANSACTION_FILES):
            change.open_writer(f"{root}/out/{number:03}").write(b"%d" % number)
        change.rename(f"{root}/file", f"{root}/out/file")


def _all_files_or_none(client: MinigfsClient, root: str, said: Said) -> None:
    made = _paths(client, f"{root}/out")
    assert len(made) in (0, TRANSACTION_FILES + 1)
    assert made or "done" not in said
    assert client.exists(f"{root}/file") == (not made)
    if made:
        assert content_of(client, f"{root}/out/file") == BEFORE
        assert content_of(client, f"{root}/out/077") == b"77"


OPERATIONS = {
    "write": Operation(_nothing, _write_file, _file_is_whole),
    "replace": Operation(_one_file, _replace, _is_old_or_new),
    "update": Operation(_one_file, _update, _is_updated_or_not),
    "append": Operation(_one_file, _append, _records_are_whole),
    "drop and bump": Operation(_one_file, _append_when_told, _records_are_whole),
    "clone": Operation(_tree, _clone, _clone_is_whole),
    "delete": Operation(_tree, _delete, _is_there_or_gone),
    "transact": Operation(_one_file, _transact, _all_files_or_none),
}
