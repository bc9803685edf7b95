"""The command-line door."""

from cairn.lineage.stage import Task
from components.door import door
from components.report.recipe import Report
from components.report.summary import summary


def work(section: Report, task: Task) -> None:
    """Draw the page."""
    from components.report.material import read
    from components.report.page import page

    html = page(section, read(task.inputs, task.digests))
    (task.outputs["report"] / "report.html").write_text(html, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    from components.report.material import READS

    door(__package__ or "", Report, work, summary, READS)
