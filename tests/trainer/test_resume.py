"""What goes on from a checkpoint ends with the bytes of a run that nothing disturbed, wherever it was stopped: in a
step or in an evaluation, whatever it trains and however."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cairn.lineage.artifact import digest_of
from tests.trainer.tokens import counting
from trainer.place import Place
from trainer.recipe import Training
from trainer.stop import Stop
from trainer.train import Run, Trainer

STEPS = 14
RECIPE: dict[str, Any] = {
    "model": {
        "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 32, "context": 16,
    },
    "threads": 1, "steps": STEPS, "batch": 4, "micro_batch": 2, "log_every": 2, "evaluate_every": 5,
    "checkpoint_every": 4, "keep_every": 6,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "the default": {},
    "masked": {
        "model": {**RECIPE["model"], "causal": False, "norm": "layernorm", "qk_norm": "none", "kv_heads": 2},
    },
    "a mixture and a ramp": {
        "mixture": [{"weights": {"even": 1, "odd": 3}}, {"begin": 0.5, "weights": {"odd": 1}}],
        "batch_ramp": [{"until": 6, "batch": 2}],
    },
    "outliers left out": {"skip": {"sigma": 0.5, "window": 4}},
    "fast, AdamW alone": {"mode": "fast", "optimizer": {"matrices": "adamw"}},
}


class Asked(Stop):
    """Is asked to stop when it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def asked(self) -> bool:  # type: ignore[override]
        """Whether the time has come."""
        self.looks -= 1
        return self.looks < 0


class Told(Stop):
    """Is asked to stop when a test says so."""

    def __init__(self) -> None:
        self.asked = False


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """A trainer sets what holds for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)


def train(
    root: Path,
    tokens: Path,
    changes: dict[str, Any],
    looks: int = 1 << 30,
    stop: Stop | None = None,
    checkpoints: str = "",
) -> bool:
    """Train in `root`, on from what is there; whether it came to its end."""
    for name in ("work", "checkpoint", "optimizer"):
        (root / name).mkdir(parents=True, exist_ok=True)
    run = Run(
        training=Training.model_validate_json(json.dumps({**RECIPE, **changes})),
        tokens=tokens,
        work=root / "work",
        checkpoints=checkpoints or str(root / "elsewhere"),
        checkpoint=root / "checkpoint",
        optimizer=root / "optimizer",
        board=None,
        name="test",
        until=None,
        grace=10.0,
        hang_after=600.0,
        join_within=10.0,
    )
    trainer = Trainer(run, stop or Asked(looks))
    before = torch.get_rng_state()
    ended = trainer.fit()
    # Checkpoints hold no state of a random generator: there is none.
    assert torch.equal(torch.get_rng_state(), before)
    trainer.close()
    return ended


def made(root: Path) -> tuple[str | None, str | None]:
    return digest_of(root / "checkpoint"), digest_of(root / "optimizer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_at_random_ends_with_the_bytes_of_one_that_was_not(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = counting(tmp_path / "tokens")
    said = json.loads((tokens / "tokens.json").read_text())
    (tokens / "tokens.json").write_text(json.dumps({**said, "vocab_size": 65, "mask": 64}))
    assert train(tmp_path / "whole", tokens, KINDS[kind])
    chance = random.Random(kind)
    stops = 0
    while not train(tmp_path / "stopped", tokens, KINDS[kind], looks=chance.randrange(1, 7)):
        stops += 1
        assert stops < 60
    assert stops > 1
    assert made(tmp_path / "stopped") == made(tmp_path / "whole")


def test_an_evaluation_that_is_cut_short_is_made_when_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = counting(tmp_path / "tokens")
    assert train(tmp_path / "whole", tokens, {})
    cut: list[int] = []
    asked: Callable[[Trainer], bool] = Trainer._asked_meanwhile

    def once_in_each(trainer: Trainer) -> bool:
        if trainer.step in cut:
            return asked(trainer)
        cut.append(trainer.step)
        return True

    monkeypatch.setattr(Trainer, "_asked_meanwhile", once_in_each)
    for step in (5, 10, STEPS):
        assert not train(tmp_path / "cut", tokens, {})
        assert cut[-1] == step
    assert train(tmp_path / "cut", tokens, {})
    assert made(tmp_path / "cut") == made(tmp_path / "whole")


def test_a_run_that_is_asked_to_stop_while_a_checkpoint_is_written_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = counting(tmp_path / "tokens")
    assert train(tmp_path / "whole", tokens, {})
    stop, write = Told(), Place.write

    def asked_meanwhile(place: Place, key: str, parts: Callable[[], Any]) -> dict[str, str | int]:
        time.sleep(0.03)  # for some steps
        stop.asked = True
        return write(place, key, parts)

    monkeypatch.setattr(Place, "write", asked_meanwhile)
    assert not train(tmp_path / "stopped", tokens, {}, stop=stop)
    written = sorted(path.parent.name for path in tmp_path.glob("stopped/elsewhere/checkpoints/*/manifest.json"))
    assert written[0] == "00000004"
    assert int(written[-1]) <= 8
    monkeypatch.undo()
    assert train(tmp_path / "stopped", tokens, {})
    assert made(tmp_path / "stopped") == made(tmp_path / "whole")


def test_a_run_whose_work_folder_is_lost_goes_on_from_an_object_store_to_the_same_bytes(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = counting(tmp_path / "tokens")
    assert train(tmp_path / "whole", tokens, {})
    place = f"{s3}/{'7' * 64}"
    here = str(tmp_path / "pod" / "elsewhere")
    monkeypatch.setattr("trainer.train.Place", lambda url: Place(url.replace(here, place)))
    assert not train(tmp_path / "pod", tokens, {}, looks=9)
    assert (tmp_path / "pod" / "work" / "kept").exists()
    shutil.rmtree(tmp_path / "pod")
    assert train(tmp_path / "pod", tokens, {})
    assert made(tmp_path / "pod") == made(tmp_path / "whole")
