"""Fixtures that every test may use. No test touches the user's keys, caches or network."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from cairn.lineage.store import Store

os.environ["WANDB_MODE"] = "disabled"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is.
settings.register_profile("cairn", deadline=None)
settings.load_profile("cairn")


@pytest.fixture(autouse=True, scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signing key of its own for the test session."""
    home = tmp_path_factory.mktemp("cairn-home")
    os.environ["CAIRN_HOME"] = str(home)
    return home


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(str(tmp_path / "store"))
