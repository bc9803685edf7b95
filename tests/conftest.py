"""Fixtures that every test may use. No test touches the user's keys, caches or network."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings

from cairn.lineage.store import Store
from pipelines.stages import NAMES
from tests.canary import SECRETS
from tests.pipelines.project import Project

os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("CAIRN_SIGNER", None)
for name in ("COLUMNS", "LINES"):  # of a person's terminal, or of none: pytest-xdist sets them for its workers
    os.environ.pop(name, None)
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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after `dvc repro`, for every test that only looks at it."""
    project = Project.create(tmp_path_factory.mktemp("built") / "project")
    with pytest.MonkeyPatch.context() as patched:
        for name, secret in SECRETS.items():
            patched.setenv(name, secret)
        printed = project.run("dvc", "repro", CAIRN_RUN="built")
    (project.root.parent / "printed").write_text(printed)
    assert project.ran(printed) == [name for name in NAMES if name != "snapshot"]
    project.commit("What made the model")
    return project


@pytest.fixture
def copy(built: Project, tmp_path: Path) -> Project:
    """A copy of the built project that a test may change."""
    shutil.copytree(built.root, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket on an S3 server of our own."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    surroundings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    bucket = urllib.request.Request(f"{endpoint}/stones", method="PUT")
    with _server(command, bucket, surroundings, "s3"):
        yield "s3://stones/cairn"


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    """The URL of a bucket on a Google Cloud Storage server of our own. It makes a record that is there already again:
    what is to be made only once is tested on S3."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    surroundings = {
        "STORAGE_EMULATOR_HOST": endpoint,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks over gRPC, which the server does not speak
        "NO_GCE_CHECK": "true",
        "GOOGLE_CLOUD_PROJECT": "test",
    }
    command = [str(Path(sys.executable).with_name("gcp-storage-emulator")), "start", "--in-memory", "--quiet"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--default-bucket", "stones"]
    bucket = urllib.request.Request(f"{endpoint}/storage/v1/b/stones")
    with _server(command, bucket, surroundings, "gs"):
        yield "gs://stones/cairn"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _server(
    command: list[str], ready: urllib.request.Request, surroundings: dict[str, str], scheme: str
) -> Iterator[None]:
    """A server that answers to `ready`, and the environment in which it is found."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in surroundings}
    os.environ.update(surroundings)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(ready, timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, f"the {scheme} server ended"
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        # fsspec keeps a file system for every set of arguments, and the server's address is not among them.
        fsspec.get_filesystem_class(scheme).clear_instance_cache()
