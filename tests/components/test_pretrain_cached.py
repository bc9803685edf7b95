"""A pod that trains on tokens in a bucket: its processes read them through a cache, and fetch what they need."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from cairn.errors import StoreError
from cairn.lineage import attestation, signing
from cairn.lineage.artifact import Artifact, Member, digest_of
from cairn.lineage.filesystem import open_url
from cairn.lineage.pins import address, read_pin_file, write_pin_file
from cairn.lineage.store import Store
from components.pretrain.recipe import Pretrain
from tests.pipelines.project import ROOT, small_recipe
from tests.trainer.test_resume import Asked
from tests.trainer.tokens import write_tokens
from trainer.cache import Stored
from trainer.tokens import Tokens
from trainer.train import Run, Trainer

SHARDS = 12
CHANGES = {"steps": 2, "batch": 2, "micro_batch": 1, "evaluate_every": 2}


@dataclass(frozen=True)
class Pod:
    """A pod with a disk, and the bucket."""

    root: Path
    store: Store
    tokens: Artifact

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def stored(self) -> Stored:
        return Stored(self.store.url, self.tokens.digest, str(self.cache))

    def pin(self, artifact: str) -> Path:
        return self.root / "pins" / artifact

    def run(self, code: int, surroundings: Mapping[str, str], **changes: int) -> str:
        """What the pod prints."""
        write_pin_file(self.pin("tokens"), self.tokens)
        recipe = small_recipe()
        recipe["pretrain"].update(CHANGES, **changes)
        with open(self.root / "recipe.yaml", "w") as file:
            YAML().dump(recipe, file)
        outputs = {
            name: {"artifacts": [{"name": name, "uri": str(self.pin(name)), "type": {"schemaTitle": "system.Model"}}]}
            for name in ("checkpoint", "optimizer")
        }
        message = {"outputs": {"artifacts": outputs, "outputFile": str(self.root / "told.json")}}
        words = [
            f"--recipe-text={(self.root / 'recipe.yaml').read_text()}",
            f"--store={self.store.url}",
            f"--input=tokens={self.pin('tokens')}",
            f"--digest=tokens={self.tokens.digest}",
            *(f"--output={name}={self.pin(name)}" for name in outputs),
            f"--executor-input={json.dumps(message)}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "components.pretrain", "kubeflow", *words],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CAIRN_WORK": str(self.root / "disk"), **surroundings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    def train(self, tokens: Path | Stored, name: str, **changes: object) -> tuple[str | None, str | None]:
        """Train in this process; the digests of what it made."""
        section = {**small_recipe()["pretrain"], **CHANGES, **changes}
        for made in ("work", "checkpoint", "optimizer"):
            (self.root / name / made).mkdir(parents=True)
        run = Run(
            training=Pretrain.model_validate_json(json.dumps(section)),
            tokens=tokens,
            work=self.root / name / "work",
            checkpoints=str(self.root / name / "work"),
            checkpoint=self.root / name / "checkpoint",
            optimizer=self.root / name / "optimizer",
            board=None,
            name="test",
            until=None,
            grace=10.0,
            hang_after=600.0,
            join_within=10.0,
        )
        before = torch.get_num_threads()
        trainer = Trainer(run, Asked(1 << 30))
        try:
            assert trainer.fit()
        finally:
            trainer.close()
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(False)
            torch.set_flush_denormal(False)
        return digest_of(run.checkpoint), digest_of(run.optimizer)

    def cached(self) -> dict[str, Path]:
        """The files of the tokens that are in the cache, by their names in the artifact."""
        names = {member.sha256: member.path for member in self.tokens.members}
        found = [path for path in self.cache.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {names[path.stem]: path for path in found}

    def damage(self, member: Member) -> None:
        """Flip a bit of an object in the bucket."""
        filesystem, path = open_url(self.store.url, address(member.md5))
        filesystem.pipe_file(path, flipped(filesystem.cat_file(path)))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.fixture
def pod(tmp_path: Path, s3: str) -> Pod:
    """A pod, and tokens of many shards in its bucket."""
    return a_pod(tmp_path, s3)


def a_pod(root: Path, s3: str, mask: int | None = None) -> Pod:
    def text(seed: int) -> list[int]:
        return [1 + (seed * 7 + position * (1 + seed % 3)) % 62 for position in range(90 + seed % 11)]

    texts = {"train": [text(seed) for seed in range(48)], "development": [text(seed) for seed in range(48, 50)]}
    store = Store(f"{s3}/{root.name}")
    tokens = store.put(write_tokens(root / "tokens", texts, shards=SHARDS, mask=mask))
    return Pod(root, store, tokens)


def test_a_pod_reads_shards_from_the_store_as_it_needs_them(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    signing.signer()
    expected = pod.train(pod.root / "tokens", "here")
    pod.run(0, {"CAIRN_CACHE": "cache", "CAIRN_PROCESSES": "2"})

    # Two processes that share a cache make the bytes that one makes of a folder, and say of which tokens.
    assert (read_pin_file(pod.pin("checkpoint")).digest, read_pin_file(pod.pin("optimizer")).digest) == expected
    found = attestation.maker(pod.store, expected[0] or "")
    assert found
    assert found.inputs == {"tokens": pod.tokens.digest}
    facts = found.statement["predicate"]["buildDefinition"]["internalParameters"]["facts"]
    manifest = json.loads((pod.root / "here" / "checkpoint" / "checkpoint.json").read_bytes())
    assert facts["domains"] == manifest["domains"]

    # No shard was fetched whose tokens are in no row, and nothing else besides.
    cached = pod.cached()
    shards = [name for name in cached if name.startswith("train/") and name.endswith(".bin")]
    assert 0 < len(shards) <= 2 * 4 < SHARDS
    assert "development/00000.bin" in cached
    assert "tokens.json" not in cached
    assert list((pod.root / "disk").rglob("*.bin")) == []

    # The next run finds it all there; what was damaged meanwhile is fetched again.
    cached[shards[0]].write_bytes(flipped(cached[shards[0]].read_bytes()))
    written = {name: path.stat().st_mtime_ns for name, path in cached.items()}
    capsys.readouterr()
    assert pod.train(pod.stored, "again") == expected
    assert f"was damaged, {pod.store}/" in capsys.readouterr().err
    again = {name: path.stat().st_mtime_ns for name, path in pod.cached().items()}
    assert {name for name, time in again.items() if written.get(name) != time} == {shards[0]}

    # What is damaged in the bucket is refused, by name and digest.
    member = next(one for one in pod.tokens.members if one.path == shards[0])
    pod.damage(member)
    cached[shards[0]].unlink()
    printed = pod.run(2, {"CAIRN_CACHE": "cache"}, log_every=2)
    place = f"{pod.store}/{address(member.md5)} ({shards[0]} of {pod.tokens.digest})"
    assert printed.splitlines()[-1].startswith(f"error: pretrain: {place}: has sha256 ")
    assert printed.endswith(f", not {member.sha256}: it is damaged there\n")
    assert shards[0] not in pod.cached()


@pytest.mark.parametrize("masked", [True, False])
def test_a_mixture_and_a_masked_model_make_of_shards_in_a_bucket_what_they_make_of_a_folder(
    s3: str, tmp_path: Path, masked: bool
) -> None:
    pod = a_pod(tmp_path, s3, mask=63)
    changes: dict[str, object] = {
        "mixture": [{"weights": {"even": 1, "odd": 3}}, {"begin": 0.5, "weights": {"odd": 1}}],
    }
    if masked:
        encoder = {"causal": False, "norm": "layernorm", "qk_norm": "none", "kv_heads": 2}
        changes["model"] = {**small_recipe()["pretrain"]["model"], **encoder}
    expected = pod.train(pod.root / "tokens", "here", **changes)
    assert pod.train(pod.stored, "cached", **changes) == expected
    log = (pod.root / "cached" / "checkpoint" / "training.jsonl").read_text()
    assert ("development_masked_loss_15.even" in log) == masked
    assert 0 < len([name for name in pod.cached() if name.endswith(".bin")]) < SHARDS


def test_tokens_that_are_not_in_the_store_are_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{store}: holds no pin for {'0' * 64}"):
        Tokens.open(Stored(store.url, "0" * 64, str(tmp_path / "cache")))
