from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimr.plan.inputs import InputSelection, everything_below, has_wildcard, matching

TREE = [
    "a.log",
    "b.txt",
    "_tmp.log",
    ".hidden.log",
    "2024/a.log",
    "2024/_manifest.json",
    "2024/07/a.log",
    "2024/07/b.txt",
    "2025/a.log",
    "_staging/a.log",
    ".git/a.log",
]


def walk(selection: InputSelection, files: list[str], below: str = "") -> list[str]:
    """What a lister finds that trusts ``enters`` and ``takes``."""
    directories = {f[len(below) :].split("/")[0] for f in files if "/" in f[len(below) :]}
    here = [f for f in files if f.startswith(below) and "/" not in f[len(below) :]]
    found = [f for f in here if selection.takes(f)]
    for name in directories:
        if selection.enters(below + name):
            inside = [f for f in files if f.startswith(f"{below}{name}/")]
            found += walk(selection, inside, f"{below}{name}/")
    return sorted(found)


def test_a_directory_means_every_visible_file_below_it() -> None:
    assert walk(everything_below("/logs"), TREE) == [
        "2024/07/a.log",
        "2024/07/b.txt",
        "2024/a.log",
        "2025/a.log",
        "a.log",
        "b.txt",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.log", ["a.log"]),
        ("*", ["2024/07/a.log", "2024/07/b.txt", "2024/a.log", "2025/a.log", "a.log", "b.txt"]),
        ("*/*.log", ["2024/a.log", "2025/a.log"]),
        ("202[5-9]", ["2025/a.log"]),
        ("202?/*.log", ["2024/a.log", "2025/a.log"]),
        ("**/*.log", ["2024/07/a.log", "2024/a.log", "2025/a.log", "a.log"]),
        ("**/07/*", ["2024/07/a.log", "2024/07/b.txt"]),
        ("2024/**", ["2024/07/a.log", "2024/07/b.txt", "2024/a.log"]),
        ("_*", []),
        (".*", []),
        ("*.csv", []),
    ],
)
def test_a_glob_takes_what_it_matches_and_everything_below_matching_directories(
    pattern: str, expected: list[str]
) -> None:
    files = [f"logs/{name}" for name in TREE]
    selection = matching(f"minigfs:///logs/{pattern}")
    below_root = [f"minigfs:///{f}".removeprefix(f"{selection.root}/") for f in files]
    found = walk(selection, [f for f in below_root if not f.startswith("minigfs:")])
    prefix = f"{selection.root}/".removeprefix("minigfs:///logs/")
    assert [prefix + f for f in found] == expected


@pytest.mark.parametrize(
    ("url", "root", "pattern"),
    [
        ("minigfs:///*.log", "minigfs:///", ("*.log",)),
        ("minigfs:///a/_b/*.log", "minigfs:///a/_b", ("*.log",)),
        ("/var/log/*/x", "/var/log", ("*", "x")),
        ("*.log", ".", ("*.log",)),
        ("logs//a?/", "logs", ("a?",)),
    ],
)
def test_the_root_of_a_glob_ends_before_the_first_wildcard(
    url: str, root: str, pattern: tuple[str, ...]
) -> None:
    assert has_wildcard(url)
    assert matching(url) == InputSelection(root=root, pattern=pattern)


def test_plain_urls_are_no_globs() -> None:
    assert not has_wildcard("minigfs:///logs/access.log")


def test_a_glob_does_not_enter_directories_that_cannot_match() -> None:
    selection = matching("/var/*.log")
    assert not selection.enters("spool")
    assert selection.enters("archive.log")
    assert not matching("/var/*/a/*.log").enters("x/b")


names = st.sampled_from(["a", "b", "ab", "c.log", "d.log"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
patterns = st.lists(
    st.sampled_from(["*", "a", "a*", "*.log", "?", "**"]), min_size=1, max_size=3
).filter(lambda parts: any("*" in part or "?" in part for part in parts))


@given(files=st.sets(paths, max_size=12), pattern=patterns)
def test_pruned_walks_find_what_pathlib_matches(files: set[str], pattern: list[str]) -> None:
    files = {f for f in files if not any(g.startswith(f"{f}/") for g in files)}
    selection = matching("/".join(pattern))
    literal = "" if selection.root == "." else f"{selection.root}/"
    below_root = [f.removeprefix(literal) for f in files if f.startswith(literal)]
    found = {literal + f for f in walk(selection, below_root)}
    assert found == {f for f in files if any(_glob_matches(p, pattern) for p in _and_parents(f))}


def _and_parents(file: str) -> list[tuple[str, ...]]:
    parts = Path(file).parts
    return [parts[:n] for n in range(1, len(parts) + 1)]


def _glob_matches(parts: tuple[str, ...], pattern: list[str]) -> bool:
    """The textbook definition: ``**`` is any run of components, at the end at least one."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        if len(pattern) == 1:
            return bool(parts)
        return any(_glob_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return (
        bool(parts) and Path(parts[0]).match(pattern[0]) and _glob_matches(parts[1:], pattern[1:])
    )
