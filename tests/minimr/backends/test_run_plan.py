"""What is refused before any work, because the work would be lost or never end."""

import os
from pathlib import Path

import pytest

import minimr
from minimr.errors import JobUsageError, OutputExists


def map_words(line: bytes):  # type: ignore[no-untyped-def] # as users write it
    for word in line.split():
        yield word, 1


JOB = minimr.Job("words", map=map_words, reduce=minimr.agg.sum)


def test_an_output_that_holds_the_input_by_another_name_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "real" / "logs" / "a.log"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"a\n")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    with pytest.raises(JobUsageError, match="holds the input"):
        minimr.run(JOB, input=str(source), output=str(tmp_path / "alias/logs"), overwrite=True)
    assert source.read_bytes() == b"a\n"


def test_an_output_that_holds_a_file_of_the_job_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\n")
    listed = tmp_path / "out" / "listed"
    listed.parent.mkdir()
    listed.write_bytes(b"precious")
    job = minimr.Job("words", map=map_words, reduce=minimr.agg.sum, files=(str(listed),))
    with pytest.raises(JobUsageError, match="holds the input"):
        minimr.run(job, input=str(tmp_path / "in"), output=str(listed.parent), overwrite=True)
    assert listed.read_bytes() == b"precious"


@pytest.mark.parametrize("place", ["thesis", "thesis/part-1.tex"])
@pytest.mark.parametrize("beside", ["chapter.tex", ".git"])
def test_what_no_job_wrote_is_not_replaced(tmp_path: Path, place: str, beside: str) -> None:
    (tmp_path / "in").write_bytes(b"a\n")
    part = tmp_path / "thesis" / "part-1.tex"
    part.parent.mkdir()
    part.write_bytes(b"precious")
    part.with_name(beside).write_bytes(b"precious")
    with pytest.raises(OutputExists, match="what no job wrote"):
        minimr.run(JOB, input=str(tmp_path / "in"), output=str(tmp_path / place), overwrite=True)
    assert part.read_bytes() == b"precious"


@pytest.mark.parametrize("left", [(), ("_side", "part-r-00003")])
def test_what_is_empty_or_a_publication_cut_short_is_replaced(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    (tmp_path / "in").write_bytes(b"a\n")
    (tmp_path / "out").mkdir()
    for name in left:
        (tmp_path / "out" / name).write_bytes(b"old")
    result = minimr.run(
        JOB, input=str(tmp_path / "in"), output=str(tmp_path / "out"), overwrite=True, processes=0
    )
    assert result.to_arrow().to_pylist() == [{"key": "a", "value": 1}]


def test_an_empty_name_is_refused_and_not_taken_for_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_bytes(b"a\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine").write_bytes(b"precious")
    monkeypatch.chdir(tmp_path / "work")
    for names in ({"output": ""}, {"input": ""}):
        with pytest.raises(JobUsageError, match="is empty"):
            minimr.run(
                JOB,
                **{"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), **names},
                overwrite=True,
                processes=0,
            )
    assert (tmp_path / "work" / "mine").read_bytes() == b"precious"


def test_an_output_where_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"a\n")
    with pytest.raises(JobUsageError, match=r"proc/there/out: cannot be made in /proc:"):
        minimr.run(JOB, input=str(tmp_path / "in"), output="/proc/there/out", processes=0)
    minimr.run(JOB, input=str(tmp_path / "in"), output=str(tmp_path / "a/b"), processes=0)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "in"]


def test_a_link_that_leads_up_is_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a").write_bytes(b"a\n")
    (tmp_path / "in" / "deep" / "up").symlink_to("..")
    (tmp_path / "in" / "self").symlink_to(".")
    (tmp_path / "in" / "aside").symlink_to("deep")
    result = minimr.run(JOB, input=str(tmp_path / "in"), output=str(tmp_path / "out"), processes=0)
    assert result.counters["map.input_records"] == 2, "once by each way that has an end"


def test_a_name_that_is_no_utf_8_is_refused_in_one_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.log")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"a\n")
    with pytest.raises(JobUsageError, match="not UTF-8"):
        minimr.run(JOB, input=str(tmp_path / "in"), output=str(tmp_path / "out"))
    (tmp_path / "in" / name).rename(tmp_path / "in" / "good.log")
    with pytest.raises(JobUsageError, match="not UTF-8"):
        minimr.run(JOB, input=str(tmp_path / "in"), output=str(tmp_path / name))
