"""A checkpoint in progress counts on a log beside it: both come back, or neither."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint import load_progress, save_progress
from trainer.metrics import TrainingLog, is_logged


def train(work: Path, *, steps: range, keep: tuple[int, ...], length: int = 0) -> None:
    """Log every step, and keep a checkpoint after some."""
    log = TrainingLog(work / "training.jsonl", length)
    for step in steps:
        log.write({"step": step, "loss": 1 / step})
        if step in keep:
            save_progress(work / "checkpoints", step, {"weight": torch.full((2,), float(step))}, {"log": log.settle()})


def resume(work: Path) -> dict[str, Any] | None:
    """The manifest of the checkpoint that is taken up."""

    def check(manifest: dict[str, Any]) -> None:
        if not is_logged(work / "training.jsonl", manifest["log"]):
            raise ValueError("lacks its log")

    found = load_progress(work / "checkpoints", check)
    return found[0] if found else None


def test_a_checkpoint_whose_log_is_lost_is_passed_over_for_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, steps=range(1, 10), keep=(4, 8))
    log = tmp_path / "training.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    assert (resume(tmp_path) or {})["step"] == 8
    log.write_bytes(b"".join(lines[:6]))
    assert (resume(tmp_path) or {})["step"] == 4
    assert "checkpoint 00000008 is passed over: lacks its log" in capsys.readouterr().err
    log.write_bytes(bytes(log.stat().st_size))
    assert resume(tmp_path) is None
    log.unlink()
    assert resume(tmp_path) is None


def test_a_log_that_is_taken_up_is_cut_to_the_checkpoint_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    train(whole, steps=range(1, 10), keep=(4,))
    train(resumed, steps=range(1, 8), keep=(4,))
    manifest = resume(resumed)
    assert manifest is not None
    train(resumed, steps=range(5, 10), keep=(8,), length=manifest["log"]["length"])
    assert (resumed / "training.jsonl").read_bytes() == (whole / "training.jsonl").read_bytes()
    # What was read back counts too in what the next checkpoint says of the log.
    assert (resume(resumed) or {})["step"] == 8


def test_the_log_is_on_the_disk_before_a_checkpoint_counts_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def note(number: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    train(tmp_path, steps=range(1, 3), keep=(2,))
    assert synced[0] == "training.jsonl"
    assert [name for name in synced if "manifest.json" in name]
