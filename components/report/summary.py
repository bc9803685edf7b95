"""What a person sees of the report: the report, with the times that the artifact itself may not hold."""

from components.report.page import checkpoint_of, with_times
from components.report.times import times_of
from components.summary import Read, Summary


def summary(read: Read) -> Summary:
    """The page, as `cairn report` shows it."""
    page = read("report", "report.html").decode()
    return Summary(page=with_times(page, times_of(read.store, checkpoint_of(page))))
