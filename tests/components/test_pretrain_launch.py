"""Real launches through TorchX: the same bytes on one and two processes, after a kill, after Ctrl-C."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from wandb.proto import wandb_internal_pb2

from cairn.errors import StageError
from cairn.lineage.artifact import digest_of
from cairn.resources import Resources
from components.pretrain.launch import Heard, pretrain
from components.pretrain.recipe import Pretrain
from tests.pipelines.project import heed_interrupt
from tests.trainer.tokens import counting

LAUNCH = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from cairn.errors import guard
from cairn.resources import Resources
from components.pretrain.launch import pretrain
from components.pretrain.recipe import Pretrain
root, processes, recipe = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
facts = {}
def launch():
    for name in ("checkpoint", "optimizer", "work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    pretrain(Pretrain.model_validate_json(recipe), tokens=root / "tokens", checkpoint=root / "checkpoint",
             optimizer=root / "optimizer", work=root / "work", name="test", facts=facts,
             checkpoints=os.environ.get("CAIRN_CHECKPOINTS"),
             resources=replace(Resources.from_environment(), processes=processes))
    print(json.dumps(facts))
if __name__ == "__main__":
    sys.exit(guard(launch))
"""

RECIPE = {
    "model": {
        "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 32, "context": 16,
    },
    "threads": 1,
    "steps": 40, "batch": 4, "micro_batch": 2, "checkpoint_every": 7, "evaluate_every": 20, "log_every": 1,
}  # fmt: skip


def start(
    root: Path, processes: int = 1, surroundings: Mapping[str, str] | None = None, **changes: object
) -> "subprocess.Popen[str]":
    if not (root / "tokens").exists():
        counting(root / "tokens")
    command = [sys.executable, "-c", LAUNCH, str(root), str(processes), json.dumps({**RECIPE, **changes})]
    return subprocess.Popen(
        command,
        env={**os.environ, **(surroundings or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupt,
    )


def launch(
    root: Path,
    processes: int = 1,
    code: int = 0,
    surroundings: Mapping[str, str] | None = None,
    **changes: object,
) -> tuple[str, str]:
    process = start(root, processes, surroundings, **changes)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    return printed, said


def made(root: Path) -> tuple[str | None, str | None]:
    return digest_of(root / "checkpoint"), digest_of(root / "optimizer")


def wait_for_step(process: "subprocess.Popen[str]", work: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        log = work / "training.jsonl"
        if log.exists() and log.read_text().count("\n") >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} was not reached")


def running(root: Path, *words: str) -> list[int]:
    """The processes whose command line has a path under `root` and these words."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if all(word.encode() in line for word in (str(root), *words)):
            found.append(int(folder.name))
    return found


def rank(root: Path, number: int) -> int:
    """The process of a trainer that has this rank."""
    (found,) = [
        one
        for one in running(root, "-m\0trainer")
        if f"\0RANK={number}\0".encode() in Path(f"/proc/{one}/environ").read_bytes()
    ]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps that nothing disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    printed, _ = launch(root)
    facts = json.loads(printed)
    assert facts["step"] == 40
    assert facts["tokens_seen"] == 40 * 4 * 16
    return root


LONG: dict[str, Any] = {"steps": 1500, "checkpoint_every": 100, "keep_every": 120, "evaluate_every": 1000}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run long enough to be caught in the middle."""
    root = tmp_path_factory.mktemp("long")
    launch(root, **LONG)
    return root


def test_the_log_shows_that_it_learns(undisturbed: Path) -> None:
    lines = [json.loads(line) for line in (undisturbed / "checkpoint" / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert {"development_bits_per_byte.even", "development_bits_per_byte.odd"} <= set(lines[19])
    assert not any("second" in name for line in lines for name in line)


def test_two_processes_one_of_which_is_killed_make_the_bytes_that_one_makes(undisturbed: Path, tmp_path: Path) -> None:
    process = start(tmp_path, processes=2)
    while not (tmp_path / "work" / "checkpoints" / "00000007" / "manifest.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    os.kill(rank(tmp_path, 1), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert re.search(r"pretrain: rank 1 was killed by signal 9: resuming at step \d+ \(restart 1 of 3\)", said), said
    assert "Traceback" not in said
    assert made(tmp_path) == made(undisturbed)


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_with_its_place_and_training_goes_on_to_the_same_bytes(
    long: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, 2, {"CAIRN_HANG_AFTER": "4", "CAIRN_GRACE": "2"}, **LONG)
    wait_for_step(process, tmp_path / "work", 150)
    os.kill(rank(tmp_path, 1), signal.SIGSTOP)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    place = r"rank 1 is behind, in [a-z ]+ of step \d+, and does not answer; stacks of those that answer: (\S+)"
    found = re.search(rf"pretrain: hangs: nobody got on for 4 s: {place}", said)
    assert found, said
    assert "in combine" in (Path(found[1]) / "rank-0.txt").read_text()
    assert re.search(r"pretrain: after the hang: resuming at step \d+ \(restart 1 of 3\)", said), said
    assert made(tmp_path) == made(long)


def test_what_a_person_has_to_put_right_is_not_tried_again(tmp_path: Path) -> None:
    optimizer = {"matrices": "adamw", "lr": 1e38}
    _, said = launch(tmp_path, 2, 2, optimizer=optimizer, schedule={"warmup": 0.0})
    assert said.count("training diverged") == 1
    assert "restart" not in said


def test_steps_to_trace_that_there_are_not_are_refused_before_anything_starts(tmp_path: Path) -> None:
    counting(tmp_path / "tokens")
    folders: dict[str, Any] = {name: tmp_path / name for name in ("tokens", "checkpoint", "optimizer", "work")}
    asked = Resources(workers=1, processes=1, profile=(40, 50))
    with pytest.raises(StageError, match="CAIRN_PROFILE='40:50': training has steps 0 to 39: name some of them"):
        pretrain(Pretrain.model_validate_json(json.dumps(RECIPE)), **folders, resources=asked, name="test", facts={})
    assert not (tmp_path / "work").exists()


def test_a_trainer_that_is_told_to_end_while_it_starts_loses_nothing(undisturbed: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    # Not torchrun, nor its child before it is another program: that has the handlers of its parent.
    while not (found := running(tmp_path, "-u\0-m\0trainer")) or not _listens(found[-1]):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    os.kill(found[-1], signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "stopped at step 0, checkpoint written, by somebody else: run again to go on from there" in said
    launch(tmp_path)
    assert made(tmp_path) == made(undisturbed)


def _listens(process: int) -> bool:
    """Whether a process handles SIGTERM by now."""
    with suppress(FileNotFoundError, ProcessLookupError):
        caught = re.search(r"SigCgt:\t([0-9a-f]+)", Path(f"/proc/{process}/status").read_text())
        return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_four_processes_make_the_bytes_that_one_and_two_make(tmp_path: Path) -> None:
    # Four parts are where sums in pairs and sums one after another begin to differ.
    short: dict[str, Any] = {"steps": 8, "batch": 8, "micro_batch": 2, "evaluate_every": 8, "threads": 1}
    for processes in (1, 2, 4):
        launch(tmp_path / str(processes), processes, **short)
    assert made(tmp_path / "1") == made(tmp_path / "2") == made(tmp_path / "4")


def test_the_log_says_the_learning_rate_that_each_step_took(undisturbed: Path) -> None:
    lines = [json.loads(line) for line in (undisturbed / "checkpoint" / "training.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["lr"] for line in lines}
    # By default 0.008, in 40 steps: 1.2 of warm-up, and decay over the last 24.
    assert logged[1] == pytest.approx(0.008 / 1.2)
    assert logged[2] == logged[16] == 0.008
    assert logged[18] == pytest.approx(0.008 * 23 / 24)
    assert logged[40] == pytest.approx(0.008 / 24)


def history(log: Path) -> Iterator[dict[str, Any]]:
    """The lines that a W&B run file holds. It is a log of LevelDB: records in parts, none across a block of 32 KiB."""
    data, at, record, protocol = log.read_bytes(), 7, b"", cast(Any, wandb_internal_pb2)
    while at < len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # whole, or the last part
            continue
        said = protocol.Record.FromString(record)
        if said.HasField("history"):
            yield {".".join(one.nested_key) or one.key: json.loads(one.value_json) for one in said.history.item}
        record = b""


def test_an_offline_wandb_run_is_kept_outside_the_work_folder_and_changes_no_byte(
    undisturbed: Path, tmp_path: Path
) -> None:
    launch(tmp_path, surroundings={"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path / "board")})
    (log,) = (tmp_path / "board" / "wandb").glob("offline-run-*-test/*.wandb")
    sent = list(history(log))
    speeds = {"tokens_per_second", "data_wait", "evaluation", "peak_rss_gib"}
    lines = [json.loads(line) for line in (tmp_path / "checkpoint" / "training.jsonl").read_text().splitlines()]
    assert [one["step"] for one in sent] == [line["step"] for line in lines]
    for line, one in zip(lines, sent, strict=True):
        assert one.keys() - {key for key in one if key.startswith("_")} == line.keys() | speeds
        assert {name: pytest.approx(value, rel=1e-6) for name, value in line.items()} == {n: one[n] for n in line}
    assert made(tmp_path) == made(undisturbed)


def test_after_a_killed_launcher_the_trainer_ends_and_the_next_run_makes_the_same_bytes(
    long: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, **LONG)
    wait_for_step(process, tmp_path / "work", 150)
    process.kill()
    process.communicate()
    _, said = launch(tmp_path, **LONG)
    assert re.search(r"resuming at step \d{3}", said)
    assert made(tmp_path) == made(long)


def test_a_run_right_after_the_launcher_was_killed_while_its_trainer_starts_makes_the_same_bytes(
    undisturbed: Path, tmp_path: Path
) -> None:
    process = start(tmp_path)
    while not running(tmp_path, "run.json"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    # The trainer that it started has not even read what is asked of it.
    assert not (tmp_path / "work" / "training.jsonl").exists()
    process.kill()
    process.communicate()
    launch(tmp_path)
    assert made(tmp_path) == made(undisturbed)
    assert not (tmp_path / "work" / "checkpoints" / "00000000").exists(), "the orphan trained"


def test_after_everything_was_killed_the_next_run_makes_the_same_bytes(long: Path, tmp_path: Path) -> None:
    process = start(tmp_path, **LONG)
    wait_for_step(process, tmp_path / "work", 250)
    process.kill()
    process.communicate()
    for number in running(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    _, said = launch(tmp_path, **LONG)
    assert "resuming at step 200" in said
    assert made(tmp_path) == made(long)


def test_the_same_signal_by_two_ways_interrupts_once_and_a_later_one_again() -> None:
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        heard(signal.SIGINT, None)
    heard(signal.SIGINT, None)
    heard(signal.SIGTERM, None)
    heard.last -= 2
    with pytest.raises(SystemExit, match="143"):
        heard(signal.SIGTERM, None)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_first(
    long: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    process = start(tmp_path, **LONG)
    wait_for_step(process, tmp_path / "work", 120)
    for _ in range(20):  # a terminal sends it, and so does `cairn run`
        process.send_signal(sent)
        time.sleep(0.01)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    stopped = re.search(r"stopped at step (\d+), checkpoint written", said)
    assert stopped, said
    _, said = launch(tmp_path, **LONG)
    assert f"resuming at step {stopped[1]}" in said
    assert made(tmp_path) == made(long)


@pytest.mark.slow
def test_a_run_whose_checkpoints_another_machine_took_over_ends_and_the_other_ends_with_the_same_bytes(
    long: Path, tmp_path: Path
) -> None:
    place = {"CAIRN_CHECKPOINTS": str(tmp_path / "place")}
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    process = start(one, 1, place, **LONG)
    wait_for_step(process, one / "work", 220)
    os.kill(rank(one, 0), signal.SIGSTOP)  # a machine that nobody hears of
    second = start(other, 1, place, **LONG)
    wait_for_step(second, other / "work", 250)
    os.kill(rank(one, 0), signal.SIGCONT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert re.search(r"error: pretrain: \S+/place: process \d+ on \S+ took these checkpoints over at \S+:", said), said
    assert "Traceback" not in said
    assert not running(one, "-m\0trainer")
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert re.search(r"resuming at step [12]00", said), said
    assert made(other) == made(long)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_while_it_compiles_ends_in_time_and_is_not_started_again(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    slow = {"CAIRN_GRACE": "3", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    process = start(tmp_path, 1, slow, compile=True, mode="fast")
    while not running(tmp_path, "cc1plus"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    began = time.monotonic()
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert re.search(r"stopped (before the first checkpoint|at step \d+, checkpoint written)", said), said
    assert "Traceback" not in said
    assert time.monotonic() - began < 30
    assert not running(tmp_path, "-m\0trainer")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_a_lost_log_comes_back(
    long: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, **LONG)
    wait_for_step(process, tmp_path / "work", 350)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    newest = max((tmp_path / "work" / "checkpoints").iterdir())
    state = newest / "00000.bin"
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    (tmp_path / "work" / "training.jsonl").unlink()
    _, said = launch(tmp_path, **LONG)
    assert f"checkpoint {newest.name} is passed over: 00000.bin holds other bytes than were saved" in said
    assert "resuming at step" in said
    assert made(tmp_path) == made(long)


def test_training_that_diverges_stops_with_the_step_and_what_to_do(tmp_path: Path) -> None:
    optimizer = {"matrices": "adamw", "lr": 1e38}
    _, said = launch(tmp_path, code=2, optimizer=optimizer, schedule={"warmup": 0.0})
    assert re.search(r"error: pretrain: step \d+: the loss is nan .* training diverged .*; lower", said), said
    assert "Traceback" not in said.rsplit("error: ", 1)[1]
