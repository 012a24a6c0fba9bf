import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_datasets() -> Path:
    """The directory of real logs and documents that the tests compare answers on."""
    directory = os.environ.get("MINIMR_DATASETS")
    if not directory:
        pytest.skip("MINIMR_DATASETS is not set: no real logs and documents to try")
    return Path(directory)
