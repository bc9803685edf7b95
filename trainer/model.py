"""The model: one Transformer, causal or bidirectional. It knows nothing of processes, files or optimizers.

A shape says which parts it has: where it normalises and how, how it knows positions, what its MLP is. Every shape that
a recipe accepts is held by a class of Hugging Face (trainer/architecture.py), so that what is trained loads without
remote code. The names of the weights are ours, and the same for every shape.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.kernels import (
    Reach,
    activate,
    attend,
    head_loss,
    layer_norm,
    local,
    reach,
    rms_norm,
    rms_norm_rotate,
    rotate,
    stacked,
    swiglu,
)
from trainer.recipe import ModelShape


class Transformer(nn.Module):
    """Weights are fp32; matrices are multiplied in `dtype`."""

    def __init__(self, shape: ModelShape, vocab_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        self.embedding = Table(vocab_size, shape.width, tied=shape.tied)
        self.positions = Table(shape.context, shape.width) if shape.positions == "learned" else None
        self.embedding_norm = None if shape.causal else Norm(shape)
        self.blocks = nn.ModuleList(Block(shape, first=layer == 0) for layer in range(shape.layers))
        self.norm = None if shape.norm_placement == "post" else Norm(shape)
        self.transform = None if shape.causal else Transform(shape)
        self.head = None if shape.tied else Matrix(vocab_size, shape.width)
        self.logit_bias = None if shape.causal else nn.Parameter(torch.empty(vocab_size))
        self.head_loss = head_loss
        """Takes what `predictor` gives, `head_weight` and `head_bias`: `kernels.head_loss`, or its like for parts."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def initialize(self, seed: int) -> None:
        """Take the values that are drawn for a seed."""
        with torch.no_grad():
            for (_, value), parameter in zip(self.drawn(seed), self.parameters(), strict=True):
                parameter.copy_(value)

    def drawn(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Names and first values of the weights, one after another, fp32 on the CPU. What a block adds to the residual
        stream starts at zero, so that depth does not change how training begins; a tied head starts small for the same
        reason."""
        generator = torch.Generator().manual_seed(seed)
        spread = 0.58 * self.shape.width**-0.5
        # A norm behind a matrix of zeros would blow its gradient up by 1/sqrt(eps): there the norm's scale is the zero.
        last = ("attention_norm.weight", "mlp_norm.weight")
        zeros = last if self.shape.norm_placement == "output" else ("attention.output.weight", "mlp.down.weight")
        for name, parameter in self.named_parameters():
            value = torch.empty(parameter.shape, device="cpu")
            if name.endswith(("bias", *zeros)) or name == "head.weight":
                value.zero_()
            elif parameter.dim() == 1:
                value.fill_(1.0)
            else:
                table = name in ("embedding.weight", "positions.weight")
                value.normal_(0.0, 0.02 if table else spread, generator=generator)
            yield name, value

    def forward(self, tokens: Tensor, document: Tensor | None = None) -> Tensor:
        """Logits, fp32, (batch, time, vocabulary), for tokens (batch, time) int64; time is at most the context."""
        return self.logits(self.hidden(tokens, document))

    def hidden(self, tokens: Tensor, document: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """What comes out of the blocks, normalised: (batch, time, width) in the compute dtype.

        positions: (time,) or (batch, time) int64; None counts from 0.
        """
        x = self.embedding(tokens, self.dtype)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        rope = None
        if self.positions is None:
            rope = self._rope(positions)
        else:
            x = x + self.positions(positions, self.dtype)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        seen = reach(document, self.shape.causal, tokens.shape[1], x)
        for block in self.blocks:
            x = block(x, rope, seen)
        return x if self.norm is None else self.norm(x)  # type: ignore[no-any-return]

    def predictor(self, hidden: Tensor) -> Tensor:
        """What the head multiplies, (…, width): `hidden` itself, or what a bidirectional model makes of it first."""
        return hidden if self.transform is None else self.transform(hidden)

    def head_weight(self) -> Tensor:
        """The output head in the compute dtype, (vocabulary, width)."""
        return local((self.embedding if self.head is None else self.head).weight).to(self.dtype)

    def head_bias(self) -> Tensor | None:
        """What a bidirectional model adds to its logits, in the compute dtype, (vocabulary,)."""
        return None if self.logit_bias is None else local(self.logit_bias).to(self.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits, fp32, (…, vocabulary), of `hidden` (…, width)."""
        return F.linear(self.predictor(hidden), self.head_weight(), self.head_bias()).float()

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the rotary angles, (…, time, 1, head_dim / 2). No buffer: a model that is built on the
        meta device would have to fill it again, and this is a thousandth of a step."""
        half = torch.arange(0, self.shape.head_dim, 2, device=positions.device).float() / self.shape.head_dim
        angle = (positions.float()[..., None] * self.shape.rope_theta**-half)[..., None, :]
        return angle.cos().to(self.dtype), angle.sin().to(self.dtype)


class Block(nn.Module):
    """Attention, then the MLP, each added to the stream; the norm comes before, after the sum, or in between."""

    def __init__(self, shape: ModelShape, first: bool = False) -> None:
        super().__init__()
        self.placement = shape.norm_placement
        # ModernBERT: the stream comes normalised from the embedding, and is not normalised again.
        ready = first and not shape.causal and self.placement == "pre"
        self.attention_norm = nn.Identity() if ready else Norm(shape)
        self.attention = Attention(shape)
        self.mlp_norm = Norm(shape)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None, seen: Reach) -> Tensor:
        if self.placement == "pre":
            x = x + self.attention(self.attention_norm(x), rope, seen)
            return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]
        if self.placement == "post":
            x = self.attention_norm(x + self.attention(x, rope, seen))
            return self.mlp_norm(x + self.mlp(x))  # type: ignore[no-any-return]
        x = x + self.attention_norm(self.attention(x, rope, seen))
        return x + self.mlp_norm(self.mlp(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention with grouped queries. Heads are counted from the weights: tensor parallelism leaves a part of them."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.query = Matrix(shape.heads * shape.head_dim, shape.width, shape.bias)
        self.key = Matrix(shape.kv_heads * shape.head_dim, shape.width, shape.bias)
        self.value = Matrix(shape.kv_heads * shape.head_dim, shape.width, shape.bias)
        self.output = Matrix(shape.width, shape.heads * shape.head_dim, shape.bias)
        if shape.qk_norm != "none":
            heads, kv_heads = (1, 1) if shape.qk_norm == "head" else (shape.heads, shape.kv_heads)
            self.query_norm = Norm(shape, heads * shape.head_dim, of_heads=True)
            self.key_norm = Norm(shape, kv_heads * shape.head_dim, of_heads=True)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None, seen: Reach) -> Tensor:
        e, eps = self.shape.head_dim, self.shape.norm_eps
        h, k = (local(matrix.weight).shape[0] // e for matrix in (self.query, self.key))
        # One product for the three: the weights stay apart, only the multiplication is shared.
        qkv = joined(x, self.query, self.key, self.value).view(*x.shape[:2], h + 2 * k, e)
        # Split, not sliced: the gradient of a slice is as large as what it was cut from.
        qk, value = torch.split(qkv, [h + k, k], 2)
        # The scale of the scores, 1/sqrt(e), goes with the query: into its norm where there is one.
        scale = e**-0.5
        if self.shape.qk_norm == "head":
            of_query, of_key = local(self.query_norm.weight) * scale, local(self.key_norm.weight)
            weight = torch.cat((of_query.expand(h, e), of_key.expand(k, e)))
            qk = rms_norm(qk, weight, eps) if rope is None else rms_norm_rotate(qk, weight, eps, *rope)
        elif self.shape.qk_norm == "width":
            query, key = (part.flatten(2) for part in torch.split(qk, [h, k], 2))
            query, key = rms_norm(query, self.query_norm.weight * scale, eps), rms_norm(key, self.key_norm.weight, eps)
            qk = torch.cat((query, key), -1).view(*x.shape[:2], h + k, e)
        if rope is not None and self.shape.qk_norm != "head":
            qk = rotate(qk, *rope)
        query, key = torch.split(qk, [h, k], 2)
        if self.shape.qk_norm == "none":
            query = query * scale
        return self.output(attend(query, key, value, seen, self.shape.causal))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """down(activation(gate x) * up x), as in SwiGLU; without a gate, down(activation(up x))."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.gate = Matrix(shape.mlp_width, shape.width, shape.bias) if shape.gated else None
        self.up = Matrix(shape.mlp_width, shape.width, shape.bias)
        self.down = Matrix(shape.width, shape.mlp_width, shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(activate(self.up(x), self.activation))  # type: ignore[no-any-return]
        both = joined(x, self.gate, self.up)
        if self.activation == "silu":
            return self.down(swiglu(both))  # type: ignore[no-any-return]
        gate, up = both.chunk(2, -1)
        return self.down(activate(gate, self.activation) * up)  # type: ignore[no-any-return]


class Transform(nn.Module):
    """What a bidirectional model does before its head: a matrix, the activation, a norm."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.activation = shape.activation
        self.dense = Matrix(shape.width, shape.width, shape.bias)
        self.norm = Norm(shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(activate(self.dense(x), self.activation))  # type: ignore[no-any-return]


class Table(nn.Module):
    """A vector for each token, or for each position."""

    def __init__(self, rows: int, columns: int, tied: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.tied = tied

    def forward(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        weight = local(self.weight)
        # The head's gradient, which comes first, is of every row: to that one the few of this one are added.
        return F.embedding(index, weight, sparse=self.tied and weight.is_cpu).to(dtype)


class Matrix(nn.Module):
    """A linear map whose fp32 weight is cast to the dtype of its input: in place of autocast."""

    def __init__(self, rows: int, columns: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else local(self.bias).to(x.dtype)
        return F.linear(x, local(self.weight).to(x.dtype), bias)


def joined(x: Tensor, *matrices: Matrix) -> Tensor:
    """What several matrices make of x, one behind the other in the last dimension, in one product."""
    weight = stacked([local(matrix.weight) for matrix in matrices], x.dtype)
    biases: list[Tensor] = [local(matrix.bias) for matrix in matrices if matrix.bias is not None]
    return F.linear(x, weight, torch.cat(biases).to(x.dtype) if biases else None)


class Norm(nn.Module):
    """RMSNorm or LayerNorm with a learned scale; LayerNorm also adds a learned bias where the shape has them.

    of_heads: of queries and keys, which is RMSNorm in every shape.
    """

    def __init__(self, shape: ModelShape, width: int | None = None, of_heads: bool = False) -> None:
        super().__init__()
        width = shape.width if width is None else width
        self.centred = shape.norm == "layernorm" and not of_heads
        self.eps = shape.norm_eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if self.centred and shape.bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight = local(self.weight)
        if self.centred:
            return layer_norm(x, weight, None if self.bias is None else local(self.bias), self.eps)
        return rms_norm(x, weight, self.eps)
