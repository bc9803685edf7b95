"""The model: one causal Transformer. It knows nothing of processes, files or optimizers.

Pre-norm blocks (RMSNorm), rotary positions, optional per-head norm of queries and keys, grouped-query attention,
SwiGLU, no biases: what the Qwen3 class of Hugging Face holds, so that every model it trains loads without remote code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.kernels import attend, rms_norm, rotate, swiglu
from trainer.recipe import ModelShape


class Transformer(nn.Module):
    """Weights are fp32; matrices are multiplied in `dtype`."""

    def __init__(self, shape: ModelShape, vocab_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = shape
        self.dtype = dtype
        self.embedding = nn.Embedding(vocab_size, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_eps)
        self.head = None if shape.tied else Matrix(vocab_size, shape.width)
        frequency = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angle = torch.outer(torch.arange(shape.context).float(), frequency)[:, None]
        self.register_buffer("cosine", angle.cos().to(dtype), persistent=False)
        self.register_buffer("sine", angle.sin().to(dtype), persistent=False)

    def initialize(self, seed: int) -> None:
        """Draw the weights anew. What a block adds to the residual stream starts at zero, so that depth does not change
        how training begins; a tied head starts small for the same reason."""
        generator = torch.Generator().manual_seed(seed)
        spread = 0.58 * self.shape.width**-0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 1:
                    parameter.fill_(1.0)
                elif name.endswith(("attention.output.weight", "mlp.down.weight")) or name == "head.weight":
                    parameter.zero_()
                else:
                    parameter.normal_(0.0, 0.02 if name == "embedding.weight" else spread, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, fp32, (batch, time, vocabulary), for tokens (batch, time) int64; time is at most the context."""
        return F.linear(self.hidden(tokens), self.head_weight()).float()

    def hidden(self, tokens: Tensor, document: Tensor | None = None) -> Tensor:
        """What the head sees: (batch, time, width) in the compute dtype."""
        time = tokens.shape[1]
        positions = (self.cosine[:time], self.sine[:time])  # type: ignore[index]
        x = F.embedding(tokens, self.embedding.weight.to(self.dtype))
        for block in self.blocks:
            x = block(x, *positions, document)
        return self.norm(x)  # type: ignore[no-any-return]

    def head_weight(self) -> Tensor:
        """The output head in the compute dtype, (vocabulary, width)."""
        return (self.embedding if self.head is None else self.head).weight.to(self.dtype)


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised copy of the stream and added to it."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.attention_norm = Norm(shape.width, shape.norm_eps)
        self.attention = Attention(shape)
        self.mlp_norm = Norm(shape.width, shape.norm_eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, document: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cosine, sine, document)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal attention with grouped queries."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.query = Matrix(shape.heads * shape.head_dim, shape.width)
        self.key = Matrix(shape.kv_heads * shape.head_dim, shape.width)
        self.value = Matrix(shape.kv_heads * shape.head_dim, shape.width)
        self.output = Matrix(shape.width, shape.heads * shape.head_dim)
        if shape.qk_norm == "head":
            self.query_norm = Norm(shape.head_dim, shape.norm_eps)
            self.key_norm = Norm(shape.head_dim, shape.norm_eps)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, document: Tensor | None) -> Tensor:
        shape = self.shape
        h, k, e = shape.heads, shape.kv_heads, shape.head_dim
        # One product for the three: the weights stay apart, only the multiplication is shared.
        joined = torch.cat((self.query.weight, self.key.weight, self.value.weight)).to(x.dtype)
        qkv = F.linear(x, joined).view(*x.shape[:2], h + 2 * k, e)
        qk, value = qkv[:, :, : h + k], qkv[:, :, h + k :]
        # The scale of the scores, 1/sqrt(e), goes with the query: into its norm where there is one.
        if shape.qk_norm == "head":
            query_weight = (self.query_norm.weight * e**-0.5).expand(h, e)
            weight = torch.cat((query_weight, self.key_norm.weight.expand(k, e)))
            qk = rotate(rms_norm(qk, weight, shape.norm_eps), cosine, sine)
            query, key = qk[:, :, :h], qk[:, :, h:]
        else:
            qk = rotate(qk, cosine, sine)
            query, key = qk[:, :, :h] * e**-0.5, qk[:, :, h:]
        return self.output(attend(query, key, value, document))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate = Matrix(shape.mlp_width, shape.width)
        self.up = Matrix(shape.mlp_width, shape.width)
        self.down = Matrix(shape.width, shape.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.gate.weight, self.up.weight)).to(x.dtype)
        return self.down(swiglu(F.linear(x, joined)))  # type: ignore[no-any-return]


class Matrix(nn.Module):
    """A linear map without bias whose fp32 weight is cast to the dtype of its input: in place of autocast."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Norm(nn.Module):
    """RMSNorm with a learned scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
