"""The exported model, written again whole from the checkpoint. Numbers are only rounded, so hardware has no say."""

from cairn.audit.replay.job import Job
from cairn.audit.verdicts import Finding

TOLERANCE = 2.0**-8
"""Largest difference of a weight, as a share of the largest of its tensor: one rounding to bfloat16."""
WEIGHTS = (".safetensors", ".safetensors.index.json")


def replay(job: Job) -> Finding:
    """Export again and compare the bytes; where other packages may have written them otherwise, the weights."""
    from components.export.huggingface import write
    from trainer.checkpoint import largest_difference

    model = job.scratch / "model"
    model.mkdir()
    write(job.section, checkpoint=job.input("checkpoint"), tokenizer=job.input("tokenizer"), model=model)
    odd = job.compare({"model": model})
    if not odd:
        return job.same("the model was exported again from the checkpoint, to the same bytes")
    share, name = largest_difference(job.output("model"), model)
    weights = f"the largest difference of a weight, in {name}, is {share:.3g} of the largest of its tensor"
    said = f"the model was exported again: {weights}; tolerance {TOLERANCE:.3g}"
    texts = [one for one in odd if not one.rpartition(": ")[0].endswith(WEIGHTS)]
    return job.other(said, odd) if texts or not share <= TOLERANCE else job.close(said, odd)
