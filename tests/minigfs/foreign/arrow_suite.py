"""Arrow's own suite for file systems, on ours through its fsspec handler.

Run by `test_fs_arrow.py` in a pytest of its own: the suite has markers and warnings that ours does
not admit. The cluster is the one of ``$MINIMR_HOME``.
"""

import inspect
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem
from pyarrow.tests import test_fs as theirs
from pyarrow.tests.conftest import (  # noqa: F401 - fixtures
    builtin_pickle,
    cloudpickle,
    pickle_module,
)

fs = theirs.fs
pathfn = theirs.pathfn
allow_move_dir = theirs.allow_move_dir
allow_append_to_file = theirs.allow_append_to_file
pickle_with_and_without_subtree_filesystem = theirs.pickle_with_and_without_subtree_filesystem


@pytest.fixture
def filesystem_config() -> Iterator[dict[str, Any]]:
    ours = fsspec.filesystem("minigfs")
    root = f"arrow-{uuid.uuid4().hex}/"
    ours.makedirs(root)
    yield {
        "fs": PyFileSystem(FSSpecHandler(ours)),
        "pathfn": root.__add__,
        "allow_move_dir": True,
        "allow_append_to_file": True,
    }
    ours.rm(root, recursive=True)


for _name, _test in list(vars(theirs).items()):
    if _name.startswith("test_") and "fs" in inspect.signature(_test).parameters:
        globals()[_name] = _test
