"""Which models a layout can spread, and over how many processes. Asked before training starts. No torch here."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.recipe import Layout, Training


def mesh_of(layout: "Layout", processes: int) -> dict[str, int]:
    """The dimensions of the mesh by name, the fastest last: so many processes, each with a place in it."""
    data = processes // layout.tensor
    shard = data if layout.shard == "all" else layout.shard
    if shard == layout.tensor == 1:
        return {"data": processes}
    return {"replicate": data // shard, "shard": shard, "tensor": layout.tensor}


def check_layout(training: "Training") -> None:
    """Raises ValueError when the model cannot be split as `layout.tensor` says, whatever the number of processes."""
    model, tensor = training.model, training.layout.tensor
    if tensor == 1:
        return
    if model.qk_norm == "width":
        raise ValueError(
            "layout.tensor: a norm over all heads (qk_norm: width) needs them in one process: "
            "set pretrain.layout.tensor: 1 and shard the model instead"
        )
    sizes = {"heads": model.heads, "kv_heads": model.kv_heads, "mlp_width": model.mlp_width, "context": model.context}
    for name, size in sizes.items():
        if size % tensor:
            raise ValueError(f"layout.tensor ({tensor}) must divide model.{name} ({size})")


def check_processes(training: "Training", processes: int, vocab_size: int) -> None:
    """Raises ValueError when so many processes cannot spread the model, or share out a step."""
    layout, model = training.layout, training.model
    spread = (1 if layout.shard == "all" else layout.shard) * layout.tensor
    if processes % spread:
        raise ValueError(
            f"{processes} processes cannot be laid out as pretrain.layout says (shard {layout.shard}, tensor "
            f"{layout.tensor}): their number must be a multiple of {spread}"
        )
    sharing = processes // layout.tensor
    shard = sharing if layout.shard == "all" else layout.shard
    if layout.tensor > 1:
        # Parts of parts must be of one size: torch places them wrong otherwise.
        parts = layout.tensor * shard
        split = {
            "vocabulary": vocab_size,
            "mlp_width": model.mlp_width,
            "kv_heads × head_dim": model.kv_heads * model.head_dim,  # and so the heads
        }
        odd = next((f"{name} ({size})" for name, size in split.items() if size % parts), None)
        if odd is not None:
            raise ValueError(
                f"tensor {layout.tensor} × shard {shard} = {parts} parts must divide the {odd}: change pretrain.layout "
                "or the size (tokenize.vocab_size is that of the vocabulary)"
            )
    for micro_batches in _micro_batches(training):
        if micro_batches % sharing:
            raise ValueError(
                f"{sharing} processes cannot share {micro_batches} micro-batches evenly: "
                f"set CAIRN_PROCESSES to a divisor of it, or lower pretrain.micro_batch"
            )
        # A power of two for both: only then is every process' share a whole subtree of the sum.
        if training.mode == "strict" and processes > 1 and micro_batches & (micro_batches - 1):
            raise ValueError(
                f"strict mode sums micro-batches in pairs: {processes} processes need 2, 4, 8 ... micro-batches in "
                f"a step, not {micro_batches}: change pretrain.batch or micro_batch, or set pretrain.mode: fast"
            )


def _micro_batches(training: "Training") -> Iterator[int]:
    """The numbers of micro-batches that steps have."""
    for batch in dict.fromkeys([*(ramp.batch for ramp in training.batch_ramp), training.batch]):
        yield batch // training.micro_batch
