"""The report, drawn again whole: it is made of small files, in a second."""

from cairn.audit.replay.job import Job
from cairn.audit.replay.whole import run_again
from cairn.audit.verdicts import Finding


def replay(job: Job) -> Finding:
    """Draw the page and its tables again; every byte must be the same."""
    from components.report.material import READS

    made = run_again(job, {name: job.input(name, READS[name]) for name in job.component.inputs})
    odd = job.compare(made)
    if odd:
        return job.wrong("the report was drawn again and is another", odd)
    return job.same("the report was drawn again, to the same bytes")
