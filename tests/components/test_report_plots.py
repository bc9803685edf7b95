"""The tables that `dvc plots` draws from: the numbers of the log, few enough for a page."""

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from components.report.plots import BUCKETS, development, training
from tests.components.report_files import Files, training_log


def rows(text: str) -> list[dict[str, str]]:
    """The rows of a table."""
    return list(csv.DictReader(StringIO(text)))


def test_a_short_log_is_there_whole_and_with_the_same_numbers(tmp_path: Path) -> None:
    files = Files(400)
    found = rows(training(files.material(tmp_path).log))
    assert [{name: float(value) for name, value in row.items()} for row in found] == [
        {name: line[name] for name in ("step", "tokens", "loss", "lr", "grad_norm")}
        for line in files.log
        if isinstance(line, dict)
    ]


def test_of_a_long_log_the_steps_that_stand_out_stay(tmp_path: Path) -> None:
    files = Files(20_000, every=1)
    lines: Any = files.log
    lines[7_000]["loss"] = 99.0
    lines[7_001]["loss"] = 0.01
    found = rows(training(files.material(tmp_path).log))
    assert len(found) <= 4 * BUCKETS + 1
    steps = [int(row["step"]) for row in found]
    assert {1, 7_001, 7_002, 20_000} <= set(steps)
    assert steps == sorted(steps)


def test_a_gap_is_an_empty_cell(tmp_path: Path) -> None:
    files = Files(3, every=1)
    files.log = '{"step": 1, "loss": NaN, "lr": 0.5}\n'
    assert training(files.material(tmp_path).log) == "step,tokens,loss,lr,grad_norm\n1,,,0.5,\n"


def test_development_scores_are_told_by_domain_and_cannot_end_the_script_that_dvc_puts_them_into(
    tmp_path: Path,
) -> None:
    files = Files(500)
    files.log = training_log(500, 10, ("code", "</script><b>"))
    found = rows(development(files.material(tmp_path), most=12))
    assert [(row["step"], row["domain"]) for row in found] == [
        ("250", "code"),
        ("500", "code"),
        ("250", "_/script__b_"),
        ("500", "_/script__b_"),
    ]
    logged = {line["step"]: line for line in files.log if isinstance(line, dict)}
    assert float(found[0]["score"]) == logged[250]["development_bits_per_byte.code"]


def test_without_a_development_split_there_is_the_heading_alone(tmp_path: Path) -> None:
    files = Files(20)
    files.log = training_log(20, 10, ())
    assert development(files.material(tmp_path), most=12) == "step,domain,score\n"
