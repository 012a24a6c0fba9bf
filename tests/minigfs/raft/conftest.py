"""The flag that writes the transcripts anew, to be read as a diff."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-traces",
        action="store_true",
        help="write the Raft transcripts in testdata/ anew; then read the diff",
    )


@pytest.fixture
def rewrite_traces(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--rewrite-traces", default=False))
