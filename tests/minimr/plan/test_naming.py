import pytest

from minimr.errors import JobUsageError
from minimr.ids import JobId
from minimr.plan.naming import (
    compression_of,
    is_hidden,
    join_url,
    parent_url,
    part_name,
    split_root,
    staging_url,
)


@pytest.mark.parametrize(
    ("url", "root", "path"),
    [
        ("minigfs:///logs/a", "minigfs:///", "logs/a"),
        ("s3://bucket/a/b", "s3://bucket/", "a/b"),
        ("s3://bucket", "s3://bucket", ""),
        ("file:///tmp/x", "file:///", "tmp/x"),
        ("/tmp/x", "/", "tmp/x"),
        ("logs/x", "", "logs/x"),
    ],
)
def test_a_url_splits_into_file_system_and_path(url: str, root: str, path: str) -> None:
    assert split_root(url) == (root, path)


@pytest.mark.parametrize(
    ("url", "parent"),
    [
        ("minigfs:///out", "minigfs:///"),
        ("minigfs:///a/out/", "minigfs:///a"),
        ("s3://bucket/out", "s3://bucket/"),
        ("file:///tmp/a/b", "file:///tmp/a"),
        ("/out", "/"),
        ("/a//out", "/a"),
        ("out", "."),
        ("a/out", "a"),
    ],
)
def test_the_parent_of_an_output_is_the_directory_that_holds_it(url: str, parent: str) -> None:
    assert parent_url(url) == parent


@pytest.mark.parametrize("url", ["minigfs:///", "/", "s3://bucket", "file:///"])
def test_a_root_cannot_be_an_output(url: str) -> None:
    with pytest.raises(JobUsageError, match="root of a file system"):
        parent_url(url)


@pytest.mark.parametrize("output", ["minigfs:///out", "/data/out/", "file:///a/b/c"])
def test_staging_lies_beside_the_output_and_is_hidden(output: str) -> None:
    staging = staging_url(output, JobId("url-count-0123abcd"))
    assert parent_url(staging) == parent_url(output)
    name = staging.rpartition("/")[2]
    assert is_hidden(name)
    assert name == "_minimr-url-count-0123abcd"


def test_joining_to_a_root_keeps_its_slashes() -> None:
    assert join_url("minigfs:///", "a") == "minigfs:///a"
    assert join_url("minigfs:///a", "b") == "minigfs:///a/b"


def test_part_names_sort_in_order_of_their_index() -> None:
    names = [part_name("r", index) for index in (0, 1, 9, 10, 99_999)]
    assert names[0] == "part-r-00000"
    assert names == sorted(names)


def test_compression_is_told_by_the_suffix() -> None:
    assert compression_of("minigfs:///a.log.gz") == "gzip"
    assert compression_of("minigfs:///a.gz/b.log") == ""
