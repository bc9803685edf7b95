"""One project that was built, for every test that only looks at it."""

import pytest

from pipelines.stages import NAMES
from tests.pipelines.project import Project


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after `dvc repro`."""
    project = Project.create(tmp_path_factory.mktemp("built") / "project")
    printed = project.run("dvc", "repro")
    assert project.ran(printed) == [name for name in NAMES if name != "snapshot"]
    project.commit("What made the model")
    return project
