"""Tokens that lie elsewhere: fetched once, verified before use, healed here and refused when damaged there."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from cairn.errors import ArtifactError, StoreError
from tests.trainer.orders import training
from tests.trainer.tokens import counting
from trainer import cache
from trainer.batches import Batches
from trainer.cache import Remote
from trainer.tokens import Tokens


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return counting(tmp_path / "tokens", digests=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that are fetched, in order."""
    urls: list[str] = []
    download = cache._download

    def noted(remote: Remote, to: Path) -> str:
        urls.append(remote.url)
        return download(remote, to)

    monkeypatch.setattr(cache, "_download", noted)
    return urls


def read(tokens: Tokens) -> list[list[int]]:
    return Batches(training(steps=5), tokens).rows(3, 0, 4).tokens.tolist()


@pytest.mark.parametrize("place", ["file", "memory", "s3"])
def test_tokens_are_read_from_anywhere_and_each_file_is_fetched_once(
    place: str, here: Path, tmp_path: Path, fetched: list[str], request: pytest.FixtureRequest
) -> None:
    url = {"file": f"file://{tmp_path}/there", "memory": f"memory://{tmp_path.name}"}.get(place)
    url = url or f"{request.getfixturevalue('s3')}/tokens"
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.put(str(here), path, recursive=True)
    for _ in range(2):
        tokens = Tokens.open(url, tmp_path / "cache")
        assert read(tokens) == read(Tokens.open(here))
        assert tokens.manifest == Tokens.open(here).manifest
        assert len(tokens.development.document_ends) == 6
    assert sorted(fetched) == sorted(
        f"{url}/{name}" for name in ("train/00000.bin", "train/00000.parquet", "development/00000.ends")
    )


def test_processes_that_share_a_cache_fetch_a_file_once(here: Path, tmp_path: Path, fetched: list[str]) -> None:
    opened = [Tokens.open(f"file://{here}", tmp_path / "cache") for _ in range(8)]
    threads = [threading.Thread(target=read, args=[tokens]) for tokens in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 2


def test_a_damaged_file_in_the_cache_is_fetched_again(
    here: Path, tmp_path: Path, fetched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = read(Tokens.open(f"file://{here}", tmp_path / "cache"))
    shard = next((tmp_path / "cache").rglob("*.bin"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert read(Tokens.open(f"file://{here}", tmp_path / "cache")) == expected
    assert f"{shard}: was damaged, file://{here}/train/00000.bin is fetched again" in capsys.readouterr().err
    assert len(fetched) == 3


def test_a_file_that_is_damaged_there_is_refused_and_nothing_of_it_stays(here: Path, tmp_path: Path) -> None:
    tokens = Tokens.open(f"file://{here}", tmp_path / "cache")
    shard = here / "train" / "00000.bin"
    np.full(2745, 3, "<u2").tofile(shard)
    said = json.loads((here / "tokens.json").read_bytes())["splits"]["train"]["shards"][0]["sha256"][".bin"]
    with pytest.raises(ArtifactError, match=rf"train/00000\.bin: has sha256 [0-9a-f]{{64}}, not {said}: it is damaged"):
        read(tokens)
    assert not [path for path in (tmp_path / "cache").rglob("*") if ".bin" in path.name and ".lock" not in path.name]


def test_what_comes_damaged_once_is_asked_for_once_more(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, calls = cache._download, []

    def flaky(remote: Remote, to: Path) -> str:
        calls.append(remote.url)
        digest = download(remote, to)
        return "0" * 64 if len(calls) == 1 else digest

    monkeypatch.setattr(cache, "_download", flaky)
    assert read(Tokens.open(f"file://{here}", tmp_path / "cache")) == read(Tokens.open(here))
    assert len(calls) == 3


def drop_digests(root: Path) -> None:
    said = json.loads((root / "tokens.json").read_bytes())
    for shard in said["splits"]["train"]["shards"]:
        del shard["sha256"]
    (root / "tokens.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (shutil.rmtree, StoreError, r"tokens\.json: no such file: run the tokenize stage first, or correct the URL"),
        (lambda root: (root / "train" / "00000.bin").unlink(), StoreError, r"00000\.bin: no such file"),
        (drop_digests, ArtifactError, "holds no digests of its shards, so what is fetched could not be verified"),
        (lambda root: (root / "tokens.json").write_text("[]"), ArtifactError, r"tokens\.json: is not a tokens"),
    ],
)
def test_what_is_wrong_with_tokens_elsewhere_is_said_in_a_line(
    here: Path, tmp_path: Path, change: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    change(here)
    with pytest.raises(error, match=message):
        read(Tokens.open(f"file://{here}", tmp_path / "cache"))


def test_a_url_needs_a_cache_and_the_manifest_that_is_asked_for(here: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="need a cache, a folder"):
        Tokens.open(f"file://{here}")
    with pytest.raises(ArtifactError, match=f"has sha256 [0-9a-f]+, not {'0' * 64}: these are other tokens"):
        Tokens.open(f"file://{here}", tmp_path / "cache", manifest="0" * 64)


@pytest.mark.parametrize("place", ["a file", "no place", "a folder in a file's place"])
def test_a_cache_that_cannot_be_used_is_named(here: Path, tmp_path: Path, place: str) -> None:
    folder = Path("/proc/nowhere") if place == "no place" else tmp_path / "cache"
    if place == "a file":
        folder.write_text("a file")
    if place == "a folder in a file's place":
        read(Tokens.open(f"file://{here}", folder))
        shard = next(folder.rglob("*.bin"))
        shard.unlink()
        shard.mkdir()
    with pytest.raises(ArtifactError, match=rf"{folder}.*: name another folder for the cache of tokens, or remove"):
        read(Tokens.open(f"file://{here}", folder))
