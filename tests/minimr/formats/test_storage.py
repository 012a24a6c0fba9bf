"""Storage by URL: the same calls on local files and on any fsspec file system."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimr.errors import JobUsageError, OutputExists
from minimr.formats import storage as storage_module
from minimr.formats.rename import exchange, rename_exclusive
from minimr.formats.storage import Storage, absolute_url, is_local, local_path


@pytest.fixture(params=["file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}"
        return
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.makedirs("/root")
    yield "memory:///root"
    fs.rm("/root", recursive=True)


def test_files_are_written_listed_and_removed(root: str) -> None:
    storage = Storage()
    storage.write_bytes(f"{root}/d/b", b"two")
    with storage.open_output(f"{root}/d/a") as file:
        file.write(b"one")
    storage.make_directories(f"{root}/d/sub")
    assert [(entry.name, entry.size_bytes, entry.is_directory) for entry in
            storage.list_directory(f"{root}/d") if not entry.is_directory] == [
        ("a", 3, False), ("b", 3, False),
    ]  # fmt: skip
    assert storage.list_directory(f"{root}/d")[0].url == f"{root}/d/a"
    storage.rename(f"{root}/d/a", f"{root}/d/b")
    assert storage.read_bytes(f"{root}/d/b") == b"one"
    assert not storage.exists(f"{root}/d/a")
    storage.remove(f"{root}/d")
    storage.remove(f"{root}/d")
    assert storage.entry(f"{root}/d") is None
    with pytest.raises(FileNotFoundError):
        storage.open_input(f"{root}/d/b")


def test_a_tilde_that_names_nobody_is_a_name_like_others() -> None:
    assert absolute_url("~nobody-of-this-name/a") == f"file://{Path.cwd()}/~nobody-of-this-name/a"


def test_a_file_without_a_size_is_not_taken_for_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may list names without sizes, as web servers do, and tell some when asked."""
    from fsspec.implementations.memory import MemoryFileSystem

    def info(_: object, path: str, **_options: object) -> dict[str, object]:
        size = 3 if path.endswith("/told") else None
        return {"name": path, "type": "file", "size": size}

    def ls(
        _: object, path: str, detail: bool = True, **_options: object
    ) -> list[dict[str, object]]:
        name = "told" if path.endswith("/some") else "untold"
        return [{"name": f"{path}/{name}", "type": "file", "size": None}]

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    storage = Storage()
    assert [each.size_bytes for each in storage.list_directory("memory://some")] == [3]
    with pytest.raises(OSError, match="memory://all/untold: its file system does not tell how"):
        storage.list_directory("memory://all")
    with pytest.raises(OSError, match="does not tell how"):
        storage.entry("memory://all/untold")


def stage(storage: Storage, root: str, content: bytes) -> None:
    storage.write_bytes(f"{root}/_stage/part", content)
    storage.write_bytes(f"{root}/_stage/_manifest.json", b"{}")


def publish(storage: Storage, root: str, *, overwrite: bool) -> None:
    storage.publish_directory(
        f"{root}/_stage", f"{root}/out", overwrite=overwrite, last="_manifest.json"
    )


def test_a_published_directory_appears_whole(root: str) -> None:
    storage = Storage()
    stage(storage, root, b"new")
    storage.publish_directory(
        f"{root}/_stage", f"{root}/out", overwrite=False, last="_manifest.json"
    )
    names = [entry.name for entry in storage.list_directory(f"{root}/out")]
    assert names == ["_manifest.json", "part"]
    assert not storage.exists(f"{root}/_stage")


def test_an_output_that_exists_is_left_alone(root: str) -> None:
    storage = Storage()
    storage.write_bytes(f"{root}/out/mine", b"old")
    stage(storage, root, b"new")
    with pytest.raises(OutputExists, match="--overwrite"):
        publish(storage, root, overwrite=False)
    assert [entry.name for entry in storage.list_directory(f"{root}/out")] == ["mine"]
    assert storage.exists(f"{root}/_stage/part")


def test_overwriting_leaves_nothing_of_the_old_output(root: str) -> None:
    storage = Storage()
    storage.write_bytes(f"{root}/out/mine", b"old")
    stage(storage, root, b"new")
    storage.publish_directory(
        f"{root}/_stage", f"{root}/out", overwrite=True, last="_manifest.json"
    )
    assert storage.read_bytes(f"{root}/out/part") == b"new"
    assert not storage.exists(f"{root}/out/mine")
    assert not storage.exists(f"{root}/_stage")


def test_rename_never_replaces_and_exchange_swaps(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "a").touch()
    with pytest.raises(FileExistsError):
        rename_exclusive(str(one), str(two))  # rename(2) would replace an empty directory
    assert exchange(str(one), str(two))
    assert (two / "a").exists()
    with pytest.raises(FileNotFoundError):
        rename_exclusive(str(tmp_path / "none"), str(tmp_path / "other"))


def test_paths_become_urls_that_mean_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url("a/../b/") == f"file://{tmp_path}/b"
    assert absolute_url(f"file://{tmp_path}/b/") == f"file://{tmp_path}/b"
    assert absolute_url("minigfs:///logs/") == "minigfs:///logs"
    assert absolute_url("minigfs:///") == "minigfs:///"
    assert absolute_url("minigfs:////logs//a/") == "minigfs:///logs/a", "one file has one URL"
    assert is_local("a/b")
    assert not is_local("minigfs:///a")
    assert local_path("file:///a b%20c") == Path("/a b%20c")


def test_names_with_blanks_percents_and_bytes_that_are_no_text_work(tmp_path: Path) -> None:
    storage = Storage()
    names = ["a b", "100%", "#x", "ü", os.fsdecode(b"\xff")]
    for name in names:
        storage.write_bytes(f"file://{tmp_path}/{name}", name.encode(errors="surrogateescape"))
    assert {entry.name for entry in storage.list_directory(f"file://{tmp_path}")} == set(names)
    for entry in storage.list_directory(str(tmp_path)):
        assert storage.read_bytes(entry.url) == os.fsencode(entry.name)


def test_an_unknown_protocol_is_said_so() -> None:
    with pytest.raises(JobUsageError, match="nosuch"):
        Storage().exists("nosuch://x/y")


def test_local_files_need_no_fsspec(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        f"from {storage_module.__name__} import Storage\n"
        f"Storage().write_bytes('file://{tmp_path}/a', b'x')\n"
        f"Storage().list_directory('file://{tmp_path}')\n"
        "sys.exit('fsspec' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


_WHILE_ANOTHER_THREAD_IMPORTS_FSSPEC = """
import sys, threading
import minimr.formats.storage

halfway, asked, done, intruders = *(threading.Event() for _ in range(3)), []

def hold_in_the_middle(frame, event, argument):
    if frame.f_code.co_filename.endswith("fsspec/compression.py") and not halfway.is_set():
        halfway.set()
        asked.wait(1)

def import_it():
    sys.setprofile(hold_in_the_middle)
    import fsspec
    done.set()

class Witness:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("fsspec.") and threading.current_thread() is not first:
            intruders.extend([] if done.is_set() else [name])
            asked.set()

sys.meta_path.insert(0, Witness())
first = threading.Thread(target=import_it)
first.start()
halfway.wait()
minimr.formats.storage.Storage().entry('memory://nowhere')
first.join()
assert not intruders, intruders
"""


def test_no_part_of_a_library_is_asked_for_while_another_thread_imports_it() -> None:
    """Python can hand out modules that are half initialised then: seen as a failed task."""
    done = subprocess.run(
        [sys.executable, "-c", _WHILE_ANOTHER_THREAD_IMPORTS_FSSPEC],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_name_that_reads_as_a_pattern_removes_itself_and_nothing_else(root: str) -> None:
    storage = Storage()
    storage.write_bytes(f"{root}/x1/a", b"stays")
    storage.write_bytes(f"{root}/x[1]/a", b"goes")
    storage.remove(f"{root}/x[1]")
    assert storage.exists(f"{root}/x1/a")
    assert not storage.exists(f"{root}/x[1]")
