"""The command-line door."""

from typing import TYPE_CHECKING

from components.door import door

if TYPE_CHECKING:
    from cairn.lineage.stage import Task
    from components.report.recipe import Report


def work(section: "Report", task: "Task") -> None:
    """Draw the page, and put beside it the tables that `dvc plots` draws from."""
    from components.report.material import read
    from components.report.page import page
    from components.report.plots import development, training

    material = read(task.inputs, task.digests)
    for name, content in {
        "report.html": page(section, material),
        "training.csv": training(material.log),
        "development.csv": development(material, section.domains),
    }.items():
        (task.outputs["report"] / name).write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    from components.report.material import READS

    door(__package__ or "", work, READS)
