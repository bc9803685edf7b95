"""What a person decides about training. No torch here: every door reads recipes."""

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from cairn.recipe import Section
from trainer.architecture import class_of
from trainer.layout import check_layout, check_processes
from trainer.shapes import NAMED, from_depth


class ModelShape(Section):
    """A Transformer that a class of Hugging Face holds; which one follows from the shape. `named` or `depth` give the
    keys that are not written down."""

    named: Literal["tiny", "gpt1", "gpt2-124m", "bert-base", "llama-1b"] | None = None
    """A shape that has a name; keys beside it replace its own."""
    depth: int | None = Field(default=None, gt=0)
    """One number for a whole family of shapes: layers, heads, and 64 of width for each."""
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
    """Hidden size of the MLP. Multiples of 64 suit the kernels."""
    context: int = Field(gt=1)
    """Sequence length in tokens."""
    causal: bool = True
    """Whether a position sees only what comes before it, and learns the next token (GPT). Otherwise it sees the whole
    sequence, and learns the tokens that were masked (BERT, arXiv 1810.04805)."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """RMSNorm (arXiv 1910.07467) or LayerNorm (arXiv 1607.06450)."""
    norm_placement: Literal["pre", "post", "output"] = "pre"
    """Where a block normalises: `pre` what goes into attention and MLP, `post` the stream after each (GPT-1, BERT),
    `output` what comes out of each (OLMo 2, arXiv 2501.00656)."""
    norm_eps: float = Field(default=1e-6, gt=0)
    """Added to the mean square, or to the variance."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary (arXiv 2104.09864), or a vector for each position that is added to the embedding."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary positions."""
    qk_norm: Literal["none", "head", "width"] = "head"
    """RMSNorm of queries and keys: over each head (arXiv 2302.05442), or over all heads together (OLMo 2)."""
    activation: Literal["silu", "gelu", "gelu-tanh", "relu2"] = "silu"
    """Of the MLP. `gelu-tanh` is GPT-2's approximation; `relu2` the square of ReLU (arXiv 2109.08668)."""
    gated: bool = True
    """Whether the activation is multiplied with a second projection: SwiGLU and its kin (arXiv 2002.05202)."""
    bias: bool = False
    """Whether linear maps and LayerNorm add a learned vector."""
    tied: bool = True
    """Whether the output head is the embedding matrix."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        named, depth = said.get("named"), said.get("depth")
        if named is not None and depth is not None:
            raise ValueError("named and depth both give a shape: keep one")
        given = NAMED.get(named, {}) if isinstance(named, str) else {}
        if type(depth) is int and depth > 0:
            given = from_depth(depth)
        return {**given, **said}

    @model_validator(mode="after")
    def _fits(self) -> "ModelShape":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.positions == "rope" and self.head_dim % 2:
            raise ValueError(f"head_dim ({self.head_dim}) must be even: rotary positions turn pairs")
        class_of(self)
        return self

    def parameters(self, vocab_size: int) -> int:
        """Number of trained values."""
        outputs = self.head_dim * (self.heads + 2 * self.kv_heads) + self.width  # of the matrices of attention
        outputs += (2 if self.gated else 1) * self.mlp_width + self.width
        norm = 2 * self.width if self.norm == "layernorm" and self.bias else self.width
        norms = 2 * self.layers + (self.norm_placement != "post") + (0 if self.causal else 2)
        if not self.causal and self.norm_placement == "pre":
            norms -= 1  # the first block takes the embedding's
        of_heads = {"none": 0, "head": 2, "width": self.heads + self.kv_heads}[self.qk_norm] * self.head_dim
        total = self._matrices + self.layers * ((outputs if self.bias else 0) + of_heads) + norms * norm
        total += vocab_size * self.width * (1 if self.tied else 2)
        total += self.context * self.width if self.positions == "learned" else 0
        if not self.causal:
            total += vocab_size + (self.width if self.bias else 0)
        return total

    def flops_per_token(self, vocab_size: int, predicted: float = 1.0) -> float:
        """Floating-point operations of training on one token, forward and backward (PaLM, arXiv 2204.02311,
        appendix B): 6 for each weight of a matrix, and 12 for each layer, width of all heads and position of the
        context. The head counts, looking the embedding up does not; what activation checkpointing does again does not.

        predicted: share of the positions that the head is computed on.
        """
        head = vocab_size * self.width + (0 if self.causal else self.width**2)
        blocks = self._matrices - (0 if self.causal else self.width**2)
        attention = 12 * self.layers * self.heads * self.head_dim * self.context
        return 6 * (blocks + predicted * head) + attention

    @property
    def _matrices(self) -> int:
        """Weights of the matrices of the blocks, and of what a bidirectional model has before its head."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        mlp = (3 if self.gated else 2) * self.width * self.mlp_width
        return self.layers * (attention + mlp) + (0 if self.causal else self.width**2)


class Masking(Section):
    """Which tokens a bidirectional model has to guess."""

    rate: float = Field(default=0.3, gt=0, lt=1)
    """Share of the tokens of a sequence, the same number in each (30 %: arXiv 2202.08005; MosaicBERT)."""
    replacement: Literal["bert", "mask"] = "bert"
    """What stands in their place. `bert`: the mask token for 80 %, a random token for 10 %, the token itself for 10 %
    (arXiv 1810.04805); `mask`: the mask token for all."""


class Phase(Section):
    """The mixture of domains from some point of training on."""

    begin: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps after which it begins; the first begins at 0."""
    weights: dict[str, float]
    """Share of the sequences that a domain gets; taken as parts of their sum. A domain that is not named gets none."""

    @model_validator(mode="after")
    def _weighs(self) -> "Phase":
        if not self.weights or any(not (weight >= 0) for weight in self.weights.values()):
            raise ValueError("weights: write a number from 0 for each domain, such as {code: 0.7, text: 0.3}")
        if not 0 < sum(self.weights.values()) < float("inf"):
            raise ValueError("weights: at least one must be above 0, and none infinite")
        return self


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


class Ramp(Section):
    """A smaller batch at the beginning."""

    until: int = Field(gt=0)
    """The step before which it holds."""
    batch: int = Field(gt=0)
    """Sequences in a step until then."""


class Schedule(Section):
    """Warm-up, then `wsd`: a constant rate and a decay (arXiv 2404.06395); `cosine` (arXiv 1608.03983); or `linear`."""

    kind: Literal["wsd", "cosine", "linear"] = "wsd"
    """How the rate falls after warm-up. `cosine` and `linear` begin to fall at once."""
    warmup: float = Field(default=0.03, ge=0, le=1)
    """Share of the steps in which the rate rises."""
    decay: float = Field(default=0.6, ge=0, le=1)
    """Of `wsd`: share of the steps in which the rate falls."""
    shape: Literal["linear", "sqrt"] = "linear"
    """Of `wsd`: the decay, a line or one minus a square root (arXiv 2405.18392)."""
    final: float = Field(default=0.0, ge=0, le=1)
    """What is left of the rate at the last step, as a share."""

    @model_validator(mode="after")
    def _fits(self) -> "Schedule":
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warmup ({self.warmup}) and decay ({self.decay}) are more than the whole run")
        # What is written down in full names the defaults too.
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        if self.kind != "wsd" and (self.decay, self.shape) != (defaults["decay"], defaults["shape"]):
            raise ValueError(f"decay and shape are of wsd: {self.kind} falls from the end of warm-up to the last step")
        return self


class Skip(Section):
    """Leave out a step whose loss or gradient norm is an outlier, as OLMo's trainer does."""

    sigma: float = Field(default=6.0, gt=0)
    """Standard deviations above the mean from which a value is an outlier."""
    window: int = Field(default=128, gt=1)
    """Steps that mean and deviation are taken over; until half as many are known nothing is left out."""


class Layout(Section):
    """How the model is spread over the processes. What is left of them are replicas, each with its own rows."""

    shard: int | Literal["all"] = 1
    """Processes that share the weights, gradients and optimizer state of a replica (FSDP2, arXiv 2304.11277); `all`:
    every process that `tensor` leaves. More than one such group is HSDP."""
    tensor: int = Field(default=1, gt=0)
    """Processes that share every matrix product (arXiv 1909.08053), with the sequence (arXiv 2205.05198) and the loss
    split among them too."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again instead of keeping (arXiv 1604.06174): nothing, all but the matrix
    products, or whole blocks."""

    @model_validator(mode="after")
    def _fits(self) -> "Layout":
        if self.shard != "all" and self.shard < 1:
            raise ValueError(f"shard: must be a whole number from 1, or all (got {self.shard})")
        return self


class InitFrom(Section):
    """Weights to begin with, for continued pre-training."""

    path: str
    """A checkpoint artifact or a Hugging Face directory of the same model."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Its digest: the recipe says which bytes it means, wherever the path leads."""


class Training(Section):
    """One training run. The same seed and recipe give the same batches, whatever the number of processes."""

    model: ModelShape
    masking: Masking | None = None
    """Of a bidirectional model, which always has it: null there means the defaults."""
    init_from: InitFrom | None = None
    """Weights to begin with; null draws them."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    steps: int = Field(gt=0)
    """Optimizer steps."""
    batch: int = Field(gt=0)
    """Sequences of `model.context` tokens in a step, over all processes."""
    batch_ramp: tuple[Ramp, ...] = ()
    """Smaller batches at the beginning, one after another."""
    micro_batch: int = Field(gt=0)
    """Sequences that go through the model at once. The unit of work: processes share out micro-batches."""
    document_mask: bool = True
    """Whether a position looks only at its own document. The end-of-text token before a document belongs to it, as it
    does when the model is used."""
    mixture: tuple[Phase, ...] = ()
    """Domains and their weights, which may change while training runs; empty takes the text as it comes."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights, of the order of sequences and of what is masked."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """What the matrices are multiplied in. Weights and optimizer state are fp32 in any case."""
    mode: Literal["strict", "fast"] = "strict"
    """`strict`: gradients are summed in a fixed order, so 1, 2 or 4 processes give the same bits. `fast`: whatever
    order is quickest."""
    layout: Layout = Layout()
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    skip: Skip | None = None
    """Leaves out steps that are outliers; null takes every step."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of the squared logarithm of the softmax's normaliser, added to the loss (arXiv 2204.02311)."""
    loss_chunk: int | None = Field(default=None, gt=0)
    """Positions whose logits are held at once; null holds those of a micro-batch."""
    threads: int = Field(default=2, gt=0)
    """Compute threads of each process. On a CPU a matrix product adds up in an order that follows the number of
    threads, so it decides bits: it is part of the recipe, and as many processors should be there."""
    compile: bool = False
    """Compile the model (needs a C++ compiler; pays for long runs only)."""
    checkpoint_every: int = Field(default=250, gt=0)
    """Steps between checkpoints in progress."""
    keep_last: int = Field(default=2, gt=0)
    """Checkpoints in progress that stay; the older are there in case the newest is damaged."""
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
        sizes = [ramp.batch for ramp in self.batch_ramp] + [self.batch]
        ends = [ramp.until for ramp in self.batch_ramp] + [self.steps]
        begins = [phase.begin for phase in self.mixture]
        odd = next((size for size in sizes if size % self.micro_batch), None)
        if odd is not None:
            raise ValueError(f"batch ({odd}) must be a multiple of micro_batch ({self.micro_batch})")
        if any(later <= earlier for earlier, later in pairwise(ends)):
            raise ValueError("batch_ramp: every `until` must come after the one before it, and before the last step")
        if begins and (begins[0] != 0 or any(later <= earlier for earlier, later in pairwise(begins))):
            raise ValueError("mixture: the first phase begins at 0, and every other after the one before it")
        if self.model.causal and self.masking is not None:
            raise ValueError("masking is of a bidirectional model: set model.causal: false, or leave masking out")
        if self.mode == "strict" and (self.layout.shard != 1 or self.layout.tensor != 1):
            raise ValueError("strict mode keeps the whole model in every process: set pretrain.mode: fast to spread it")
        check_layout(self)
        return self

    @property
    def masked(self) -> Masking | None:
        """How tokens are masked; None where the next token is learned."""
        return None if self.model.causal else self.masking or Masking()

    def batch_at(self, step: int) -> int:
        """Sequences in a step, counted from 0."""
        return next((ramp.batch for ramp in self.batch_ramp if step < ramp.until), self.batch)

    def rows_before(self, step: int) -> int:
        """Sequences in all steps before this one."""
        rows, begun = 0, 0
        for ramp in self.batch_ramp:
            rows += ramp.batch * (min(step, ramp.until) - min(step, begun))
            begun = ramp.until
        return rows + self.batch * (step - min(step, begun))

    @property
    def tokens(self) -> int:
        """Tokens in all steps."""
        return self.rows_before(self.steps) * self.model.context

    def check_processes(self, processes: int, vocab_size: int) -> None:
        """Raises ValueError when so many processes cannot spread the model, or share out a step."""
        check_processes(self, processes, vocab_size)
