"""The fingerprint says what ran and gives nobody away."""

import getpass
import json
import platform
import socket
from pathlib import Path

import pytest

from cairn.errors import StageError
from cairn.lineage import environment
from cairn.resources import Resources

RESOURCES = Resources(workers=2, processes=1)


def test_it_names_packages_hardware_and_settings_and_is_json() -> None:
    said = json.loads(json.dumps(environment.fingerprint(RESOURCES)))
    assert said["packages"]["torch"] == environment.package_version("torch")
    assert said["python"] == platform.python_version()
    assert said["resources"] == {"workers": 2, "processes": 1}
    assert said["processor"]["model"]


def test_it_holds_no_host_user_folder_or_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-4711")
    said = json.dumps([environment.fingerprint(RESOURCES), environment.code(), environment.locks()])
    assert "canary-4711" not in said
    assert str(Path.home()) not in said
    assert str(environment.ROOT) not in said
    assert socket.gethostname() not in said or len(socket.gethostname()) < 4
    assert f'"{getpass.getuser()}"' not in said


def test_the_code_digest_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cairn").mkdir()
    (tmp_path / "cairn" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    environment.code.cache_clear()
    first = environment.code()
    assert first["commit"] is None
    (tmp_path / "cairn" / "a.py").write_text("x = 2\n")
    environment.code.cache_clear()
    assert environment.code()["sha256"] != first["sha256"]
    environment.code.cache_clear()


def test_hardware_is_named_with_its_memory_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = environment.hardware()
    assert said["memory"] > 1 << 30
    assert said["processor"]["count"] >= 1
    # A stand-in for the driver's tool, with its output on a machine with two accelerators.
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        '[ "$*" = "--query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits" ] || exit 2\n'
        "echo 'NVIDIA H100 80GB HBM3, 81559, 550.54.15'\n"
        "echo 'NVIDIA H100 80GB HBM3, [N/A], 550.54.15'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    environment.hardware.cache_clear()
    said = environment.hardware()
    environment.hardware.cache_clear()
    model = "NVIDIA H100 80GB HBM3"
    assert said["accelerators"] == [{"model": model, "memory": 81559 << 20}, {"model": model, "memory": None}]
    assert said["driver"] == "550.54.15"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate.'\nexit 9\n")
    assert environment.hardware()["accelerators"] == []
    environment.hardware.cache_clear()


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(StageError, match="the package no-such-package is not installed"):
        environment.package_version("no-such-package")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_resource_that_is_no_positive_number_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    from cairn.errors import RecipeError

    monkeypatch.setenv("CAIRN_WORKERS", value)
    with pytest.raises(RecipeError, match=f"CAIRN_WORKERS='{value}'"):
        Resources.from_environment()
