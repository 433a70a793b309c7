"""Fixtures that every package's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["databases"]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and trained models; skips where there is none.

    `DIANAQ_SHARED_DATA` names it; by default it lies beside the repository.
    """
    folder = Path(os.environ.get("DIANAQ_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DIANAQ_SHARED_DATA")
    return folder
