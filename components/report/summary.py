"""What a person sees of the report: the report."""

from components.summary import Read, Summary


def summary(read: Read) -> Summary:
    """The page itself."""
    return Summary(page=read("report", "report.html").decode())
