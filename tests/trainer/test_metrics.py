"""What training tells: losses by domain, speed and MFU, traces."""

import json
from pathlib import Path

import pytest
import torch

from cairn.errors import RecipeError
from cairn.resources import Resources
from trainer import metrics
from trainer.masking import IGNORED
from trainer.profiler import Profiler
from trainer.recipe import Training

SHAPE = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 4, "head_dim": 8, "mlp_width": 64, "context": 16}


def training(**changes: object) -> Training:
    return Training.model_validate({"model": SHAPE, "steps": 10, "batch": 4, "micro_batch": 2, **changes})


def test_the_loss_of_a_domain_is_the_mean_over_its_targets() -> None:
    nats = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 32.0]])
    targets = torch.tensor([[5, 5, 5], [5, IGNORED, 5]])
    domain = torch.tensor([[0, 0, 2], [2, 0, 2]], dtype=torch.int16)
    sums = metrics.by_domain(nats, targets, domain, 3)
    assert metrics.means(sums, ("code", "none", "text")) == {"loss.code": 1.5, "loss.text": pytest.approx(44 / 3)}


def test_of_a_single_domain_nothing_is_told_that_the_loss_does_not_tell() -> None:
    assert metrics.means(torch.tensor([3.0, 2.0]), ("all",)) == {}


def test_mfu_is_the_operations_of_the_model_over_the_peak_of_all_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "peak_of_device", lambda: 1e9)
    speed = metrics.Speed(tmp_path / "speed.jsonl", training(), 100, 2)
    # Appendix B of PaLM: six for each weight of a matrix, the head among them, and 12 L H Q T.
    matrices = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 100 * 32
    assert speed.flops == 6 * matrices + 12 * 2 * 4 * 8 * 16
    assert speed.mfu(1000.0) == pytest.approx(1000 * speed.flops / 2e9)
    speed.count(512, 0.0)
    assert "MFU" in speed.now()
    line = speed.line(1)
    assert line["mfu"] > 0
    assert json.loads((tmp_path / "speed.jsonl").read_text()) == line


def test_on_a_cpu_and_in_fp32_there_is_no_mfu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        assert "mfu" not in metrics.Speed(tmp_path / "a", training(), 100, 1).line(1)
    monkeypatch.setattr(metrics, "peak_of_device", lambda: 1e9)
    assert "mfu" not in metrics.Speed(tmp_path / "b", training(precision="fp32"), 100, 1).line(1)


def test_evaluation_is_told_apart_from_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    speed = metrics.Speed(tmp_path / "speed.jsonl", training(), 100, 1)
    speed.count(1000, 0.5)
    now[0] = 5.0
    with speed.evaluating():
        now[0] = 10.0
    line = speed.line(1)
    assert (line["tokens_per_second"], line["data_wait"], line["evaluation"]) == (200.0, 0.05, 0.5)
    assert speed.now().startswith("200 tokens/s")  # nothing was trained on since


def test_a_profile_has_the_steps_that_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profile" / "rank0.json"
    profiler = Profiler(path, 1, 3)
    for step in range(4):
        profiler.before(step)
        torch.ones(step + 1, step + 1) @ torch.ones(step + 1, step + 1)
    profiler.close()
    events = json.loads(path.read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in events) == 2
    assert capsys.readouterr().out == f"pretrain: profile of steps 1 to 2: {path}\n"


@pytest.mark.parametrize("text", ["100", "5:5", "9:3", "a:b", "-1:4", ":"])
def test_steps_to_profile_that_make_no_sense_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAIRN_PROFILE", text)
    with pytest.raises(RecipeError, match="CAIRN_PROFILE"):
        Resources.from_environment()
    monkeypatch.setenv("CAIRN_PROFILE", "3:5")
    assert Resources.from_environment().profile == (3, 5)
