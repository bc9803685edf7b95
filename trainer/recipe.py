"""What a person decides about training. No torch here: every door reads recipes."""

from typing import Literal

from pydantic import Field, model_validator

from cairn.recipe import Section


class ModelShape(Section):
    """A decoder-only Transformer that exports to the Qwen3 class of Hugging Face (Llama without `qk_norm`)."""

    layers: int = Field(gt=0)
    """Blocks, each of attention and MLP."""
    width: int = Field(gt=0)
    """Size of the residual stream."""
    heads: int = Field(gt=0)
    """Query heads."""
    kv_heads: int = Field(gt=0)
    """Key and value heads; each serves `heads / kv_heads` query heads (GQA, arXiv 2305.13245)."""
    head_dim: int = Field(gt=0)
    """Size of a head; even, as rotary positions turn pairs. 64 and 128 suit the kernels."""
    mlp_width: int = Field(gt=0)
    """Hidden size of the SwiGLU MLP (arXiv 2002.05202). Multiples of 64 suit the kernels."""
    context: int = Field(gt=1)
    """Sequence length in tokens."""
    tied: bool = True
    """Whether the output head is the embedding matrix."""
    qk_norm: bool = True
    """RMSNorm of queries and keys for each head (arXiv 2302.05442)."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary position embedding (arXiv 2104.09864)."""
    norm_eps: float = Field(default=1e-6, gt=0)
    """Added to the mean square in RMSNorm (arXiv 1910.07467)."""

    @model_validator(mode="after")
    def _fits(self) -> "ModelShape":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: rotary positions turn pairs")
        return self

    def parameters(self, vocab_size: int) -> int:
        """Number of trained values."""
        attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads)
        norms = 2 * self.width + (2 * self.head_dim if self.qk_norm else 0)
        block = attention + 3 * self.width * self.mlp_width + norms
        return self.layers * block + self.width + vocab_size * self.width * (1 if self.tied else 2)


class Optimizer(Section):
    """Muon for the matrices of the blocks, AdamW for embeddings, head and norms; or AdamW for all."""

    matrices: Literal["muon", "adamw"] = "muon"
    """Which optimizer the matrices of the blocks get. Muon: Jordan et al. 2024, scaled as in arXiv 2502.16982."""
    muon_lr: float = Field(default=0.01, gt=0)
    """Learning rate of Muon; an update has RMS 0.2 (so that AdamW's rates and weight decay carry over)."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Of Muon: how much of the earlier gradients each step keeps."""
    lr: float = Field(default=0.008, gt=0)
    """Learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW: how much of the earlier gradients, and of their squares, each step keeps (arXiv 1711.05101)."""
    eps: float = Field(default=1e-10, gt=0)
    """Of AdamW: added to the root of the mean square."""
    weight_decay: float = Field(default=0.1, ge=0)
    """For the matrices of the blocks only; embeddings and norms are not decayed (arXiv 2501.00656)."""


class Schedule(Section):
    """Warm-up, a constant rate, then linear decay (WSD, arXiv 2404.06395)."""

    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps in which the rate rises."""
    decay: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps in which the rate falls."""
    final: float = Field(default=0.0, ge=0, le=1)
    """What is left of the rate at the last step, as a share."""

    @model_validator(mode="after")
    def _fits(self) -> "Schedule":
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup ({self.warmup}) and decay ({self.decay}) are more than the whole run")
        return self


class Training(Section):
    """One training run. The same seed and recipe give the same batches, whatever the number of processes."""

    model: ModelShape
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    steps: int = Field(gt=0)
    """Optimizer steps."""
    batch: int = Field(gt=0)
    """Sequences of `model.context` tokens in a step, over all processes."""
    micro_batch: int = Field(gt=0)
    """Sequences that go through the model at once. The unit of work: processes share out micro-batches."""
    document_mask: bool = True
    """Whether a position looks only at its own document. The end-of-text token before a document belongs to it, as it
    does when the model is used."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights and of the order of sequences."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """What the matrices are multiplied in. Weights and optimizer state are fp32 in any case."""
    mode: Literal["strict", "fast"] = "strict"
    """`strict`: gradients are summed in a fixed order, so 1, 2 or 4 processes give the same bits. `fast`: whatever
    order is quickest."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    threads: int = Field(default=2, gt=0)
    """Compute threads of each process. On a CPU a matrix product adds up in an order that follows the number of
    threads, so it decides bits: it is part of the recipe, and as many processors should be there."""
    compile: bool = False
    """Compile the model (needs a C++ compiler; pays for long runs only)."""
    checkpoint_every: int = Field(default=250, gt=0)
    """Steps between checkpoints in the work folder."""
    keep_every: int | None = Field(default=None, gt=0)
    """Steps between states that stay, with the optimizer artifact: weights and optimizer, from which an audit trains
    again what followed (`cairn audit --replay`). Each takes the room of three models; null keeps none."""
    evaluate_every: int = Field(default=250, gt=0)
    """Steps between evaluations on the development split."""
    evaluate_tokens: int = Field(default=16_384, gt=0)
    """Tokens of development text for each domain in an evaluation during training."""
    log_every: int = Field(default=10, gt=0)
    """Steps between lines of the training log."""

    @model_validator(mode="after")
    def _fits(self) -> "Training":
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        return self

    @property
    def micro_batches(self) -> int:
        """Micro-batches in a step."""
        return self.batch // self.micro_batch

    def check_processes(self, processes: int) -> None:
        """Raises ValueError when a step cannot be shared out evenly, or not in a fixed order of sums."""
        if self.micro_batches % processes:
            raise ValueError(
                f"{processes} processes cannot share {self.micro_batches} micro-batches evenly: "
                f"set CAIRN_PROCESSES to a divisor of it, or lower pretrain.micro_batch"
            )
        # A power of two for both: only then is every process' share a whole subtree of the sum.
        if self.mode == "strict" and processes > 1 and self.micro_batches & (self.micro_batches - 1):
            raise ValueError(
                f"strict mode sums micro-batches in pairs: {processes} processes need 2, 4, 8 ... micro-batches in a "
                f"step, not {self.micro_batches}: change pretrain.batch or micro_batch, or set pretrain.mode: fast"
            )
