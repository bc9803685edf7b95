"""A whole stage, run again by the function that its own door calls, with outputs in a scratch folder."""

from importlib import import_module
from pathlib import Path

from cairn.audit.replay.job import Job
from cairn.lineage.stage import Task


def run_again(job: Job, inputs: dict[str, Path]) -> dict[str, Path]:
    """Where each output lies that the stage made of `inputs`.

    Raises CairnError as the stage does; what interrupted it is raised too.
    """
    outputs = {name: job.scratch / "outputs" / name for name in job.component.outputs}
    work = job.scratch / "work"
    for path in (*outputs.values(), work):
        path.mkdir(parents=True)
    digests = {name: job.attested.inputs[name] for name in inputs}
    task = Task(job.attested.stage_key, inputs, outputs, work, job.store, job.resources, digests)
    interrupted = import_module(f"components.{job.component.name}.__main__").work(job.section, task)
    if interrupted is not None:
        raise interrupted
    return outputs
