"""How often the masters are asked: once for a question, however large the tree is."""

import uuid
from collections.abc import Iterator

import pytest

from minigfs.cluster import ClusterLayout
from minigfs.fs import MinigfsFileSystem

pytestmark = pytest.mark.e2e

DIRECTORY_COUNT = 7


@pytest.fixture(scope="module")
def tree(cluster: ClusterLayout) -> Iterator[tuple[MinigfsFileSystem, str]]:
    fs = MinigfsFileSystem(home=str(cluster.home))
    root = f"/calls-{uuid.uuid4().hex}"
    fs.pipe({f"{root}/d{n}/e/f{m}": b"x" * m for n in range(DIRECTORY_COUNT) for m in range(3)})
    yield fs, root
    fs.rm(root, recursive=True)


@pytest.fixture
def asked(
    tree: tuple[MinigfsFileSystem, str], monkeypatch: pytest.MonkeyPatch
) -> list[type[object]]:
    """What the masters were asked so far, in order."""
    requests: list[type[object]] = []
    masters = tree[0].client._masters
    for name in ("call", "change"):

        def counting(request: object, then: object = getattr(masters, name)) -> object:
            requests.append(type(request))
            return then(request)  # type: ignore[operator]

        monkeypatch.setattr(masters, name, counting)
    return requests


@pytest.mark.parametrize(
    ("question", "calls_max"),
    [
        (lambda fs, root: fs.find(root), 1),
        (lambda fs, root: fs.find(root, withdirs=True, detail=True), 2),
        (lambda fs, root: fs.du(root), 1),
        (lambda fs, root: fs.du(root, total=False), 1),
        (lambda fs, root: fs.glob(f"{root}/*/e/f[12]"), 2),
        (lambda fs, root: fs.glob(f"{root}/**"), 2),
        (lambda fs, root: fs.ls(root), 1),
        (lambda fs, root: fs.exists(f"{root}/d0"), 1),
        (lambda fs, root: fs.ukey(f"{root}/d0/e/f1"), 1),
        (lambda fs, root: fs.cat_file(f"{root}/d0/e/f1"), 1),
        (lambda fs, root: fs.open(f"{root}/d0/e/f1").read(), 1),
        (lambda fs, root: fs.cat_ranges([f"{root}/d0/e/f2"] * 9, 0, 1), 1),
        (lambda fs, root: fs.locations(f"{root}/d0/e/f1"), 1),
        (lambda fs, root: fs.mv(f"{root}/d0/e/f0", f"{root}/d0/e/f0"), 3),
    ],
)
def test_one_question_is_one_call_or_two(
    tree: tuple[MinigfsFileSystem, str],
    asked: list[type[object]],
    question: object,
    calls_max: int,
) -> None:
    question(*tree)  # type: ignore[operator]
    assert 1 <= len(asked) <= calls_max, asked


def test_a_directory_of_any_size_is_removed_and_renamed_by_one_change(
    tree: tuple[MinigfsFileSystem, str], asked: list[type[object]]
) -> None:
    fs, root = tree
    fs.rename(f"{root}/d0", f"{root}/moved")
    assert len(asked) == 1
    fs.rm(f"{root}/moved", recursive=True)
    assert len(asked) == 2


def test_making_an_instance_asks_nobody(asked: list[type[object]]) -> None:
    MinigfsFileSystem(masters="127.0.0.1:1", skip_instance_cache=True)
    assert not asked
