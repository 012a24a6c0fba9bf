"""`minimr verify`: an output that changed in any way is not taken for what was published."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import minimr
from minimr.cli import cli
from minimr.errors import JobUsageError
from minimr.verify import verify_output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "in").write_bytes(b"a\nb\na\n" * 100)
    job = minimr.Job(
        "letters", map=lambda line: [(line, 1)], combine=minimr.agg.sum, reduce=minimr.agg.sum
    )
    minimr.run(job, input=str(tmp_path / "in"), output=str(tmp_path / "out"), reducers=2)
    return tmp_path / "out"


def test_an_output_is_whole_as_it_was_published(output: Path) -> None:
    report = verify_output(str(output))
    assert report.is_whole
    assert [file.name for file in report.files] == ["part-r-00000", "part-r-00001"]


def flip(output: Path) -> None:
    part = next(file for file in sorted(output.glob("part-*")) if file.stat().st_size)
    content = bytearray(part.read_bytes())
    content[0] ^= 1
    part.write_bytes(content)


def cut(output: Path) -> None:
    part = next(file for file in sorted(output.glob("part-*")) if file.stat().st_size)
    part.write_bytes(part.read_bytes()[:-1])


def change_records(output: Path) -> None:
    file = output / "_manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["parts"][0]["records"] += 1
    file.write_text(json.dumps(manifest))


def unbalance(output: Path) -> None:
    file = output / "_manifest.json"
    manifest = json.loads(file.read_bytes())
    manifest["receipt"]["reduce_input"]["records"] += 1
    file.write_text(json.dumps(manifest))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (flip, "bytes have changed"),
    "a cut": (cut, "not"),
    "a part": (lambda output: (output / "part-r-00000").unlink(), "is missing"),
    "a stranger": (lambda output: (output / "part-r-00002").touch(), "no file of this output"),
    "records": (change_records, "records"),
    "a receipt": (unbalance, "reduces read"),
    "the manifest": (lambda output: (output / "_manifest.json").write_text("{"), "cannot be read"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_every_damage_is_found_and_ends_with_exit_code_four(output: Path, what: str) -> None:
    damage, words = DAMAGES[what]
    damage(output)
    assert any(words in problem for problem in verify_output(str(output)).problems)
    result = CliRunner().invoke(cli, ["verify", str(output), "--json"])
    assert result.exit_code == 4
    assert json.loads(result.stdout)["is_whole"] is False


def test_what_is_no_output_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(JobUsageError, match="no _manifest"):
        verify_output(str(tmp_path))
