"""Forward and backward of the parts of a Transformer that autograd would run as a long row of small operations.

Each is an ordinary function with its derivative written out. On a CPU they are worth a third of a training step: fewer
passes over memory, no fp32 copy of the logits, attention as plain matrix products. All take fp32 or bf16; statistics
(norms, softmax) are in fp32 either way.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from trainer.masking import IGNORED

QUERY_BLOCK = 256  # queries in one block of attention: its scores stay in cache
CACHE = 800_000  # bytes of one operand: a core has one or two MiB, and a pass has three of them


def local(weight: Tensor) -> Tensor:
    """What this process holds of a weight that is split over processes (a DTensor); any other weight as it is.

    The gradient of a split weight stays where its part is. That of a weight which every process has whole is a sum over
    the processes that is still to be taken: each saw a part of the sequence, of the heads or of the vocabulary.
    """
    if not isinstance(weight, DTensor):
        return weight
    gradient = [placement if placement.is_shard() else Partial() for placement in weight.placements]
    return weight.to_local(grad_placements=gradient)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension (arXiv 1910.07467).

    x: (..., d) in fp32 or bf16; weight: (d,) or (heads, d), fp32. Returns the shape and dtype of x.
    """
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-any-return,no-untyped-call]


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions, pairs taken from the two halves (the GPT-NeoX convention, which Qwen3 and Llama load).

    x: (batch, time, heads, head_dim); cosine, sine: (time, 1, head_dim / 2) in the dtype of x.
    """
    return _Rotate.apply(x, cosine, sine)  # type: ignore[no-any-return,no-untyped-call]


def rms_norm_rotate(x: Tensor, weight: Tensor, eps: float, cosine: Tensor, sine: Tensor) -> Tensor:
    """`rotate(rms_norm(x, weight, eps), cosine, sine)`, in half as many passes over memory.

    x: (batch, time, heads, head_dim) in fp32 or bf16; weight: (heads, head_dim), fp32; cosine, sine: (time, 1,
    head_dim / 2) or (batch, time, 1, head_dim / 2) in the dtype of x.
    """
    if x.is_cpu and not torch.compiler.is_compiling():
        return _RMSNormRotate.apply(x, weight, eps, cosine, sine)  # type: ignore[no-any-return,no-untyped-call]
    return rotate(rms_norm(x, weight, eps), cosine, sine)


def stacked(weights: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Matrices one below the other, cast on the way: (m1, n), (m2, n), … to (m1 + m2 + …, n)."""
    if torch.compiler.is_compiling():
        return torch.cat([weight.to(dtype) for weight in weights])
    return _Stacked.apply(dtype, *weights)  # type: ignore[no-any-return,no-untyped-call]


def swiglu(gate_and_up: Tensor) -> Tensor:
    """silu(gate) * up, where the last dimension holds gate, then up. (..., 2m) to (..., m)."""
    if torch.compiler.is_compiling():  # which fuses the plain form, and does not take the other's `out=` into a view
        gate, up = gate_and_up.chunk(2, -1)
        return F.silu(gate) * up
    return _SwiGLU.apply(gate_and_up)  # type: ignore[no-any-return,no-untyped-call]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """LayerNorm over the last dimension (arXiv 1607.06450).

    x: (..., d) in fp32 or bf16; weight, bias: (d,), fp32. Returns the shape and dtype of x.
    """
    # Sharded weights come in bf16 where the model computes in it.
    weight, bias = weight.float(), None if bias is None else bias.float()
    if x.is_cpu and x.dtype != torch.float32 and not torch.compiler.is_compiling():
        return _LayerNorm.apply(x, weight, bias, eps)  # type: ignore[no-any-return,no-untyped-call]
    return F.layer_norm(x.float(), weight.shape, weight, bias, eps).to(x.dtype)


def activate(x: Tensor, activation: str) -> Tensor:
    """The activation of an MLP by its name in the recipe."""
    if activation == "silu":
        return F.silu(x)
    if activation == "relu2":
        return F.relu(x).square()
    return F.gelu(x, approximate="tanh" if activation == "gelu-tanh" else "none")


def attend(query: Tensor, key: Tensor, value: Tensor, seen: "Reach", causal: bool = True) -> Tensor:
    """Softmax attention; the query is scaled already.

    query: (batch, time, heads, e); key, value: (batch, time, kv_heads, e), all of one dtype; seen: what `reach` gave;
    causal: nothing that follows is looked at, which `seen` says too. Returns (batch, time, heads * e).
    """
    if query.is_cuda:
        return attend_fused(query, key, value, seen, causal)
    return _Attend.apply(query, key, value, seen, causal)  # type: ignore[no-any-return,no-untyped-call]


def attend_fused(query: Tensor, key: Tensor, value: Tensor, seen: "Reach", causal: bool) -> Tensor:
    """`attend` by the fused kernels of a GPU: FlexAttention (arXiv 2412.05496) where `seen` is a mask by blocks, else
    whichever kernel PyTorch takes for rows of one document."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if isinstance(seen, BlockMask):
        fused: Any = flex_attention if torch.compiler.is_compiling() or not q.is_cuda else _compiled(flex_attention)
        out: Tensor = fused(q, k, v, block_mask=seen, scale=1.0, enable_gqa=True)
    else:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=1.0, enable_gqa=True)
    return out.transpose(1, 2).flatten(2)


Reach = Tensor | BlockMask | None
"""Which positions see which."""


def reach(document: Tensor | None, causal: bool, time: int, like: Tensor) -> Reach:
    """What a position sees, made once for all blocks: (batch or 1, time, time), 0 where the row sees the column and
    -inf where it does not, in the dtype and on the device of `like`; on a GPU a mask by blocks. None where everything
    is seen, and on a GPU where rows are one document.

    document: (batch, time), the number of the document that a position belongs to, beyond which it does not look.
    """
    if like.is_cuda:
        return None if document is None else block_mask(document, causal)
    hidden = None if document is None else document[:, :, None] != document[:, None, :]
    if causal:
        later = torch.ones(time, time, dtype=torch.bool, device=like.device).triu(1)
        hidden = later[None] if hidden is None else hidden | later
    if hidden is None:
        return None
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))


def block_mask(document: Tensor, causal: bool) -> BlockMask:
    """What a position sees, by blocks of 128 × 128: those where nothing is seen are left out, and only those where some
    is and some is not are masked. document: (batch, time)."""

    def sees(row: Tensor, _: Tensor, of: Tensor, at: Tensor) -> Tensor:
        same = document[row, of] == document[row, at]
        return same & (of >= at) if causal else same

    batch, time = document.shape
    make: Any = _compiled(create_block_mask) if document.is_cuda else create_block_mask
    made: BlockMask = make(sees, batch, None, time, time, device=document.device)
    return made


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """FlexAttention is a kernel only where it is compiled; as it stands it would hold every score."""
    return torch.compile(function)


def head_loss(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy, in nats, of `hidden @ head.T + bias` against `targets`; the gradient is found on the way
    forward.

    hidden: (n, width), head: (vocabulary, width) and bias: (vocabulary,) in one dtype; targets: (n,) int64, `IGNORED`
    where nothing is learned.

    Args:
        z_loss: weight of log²Z, added to the sum for every target; Z is the normaliser of the softmax (PaLM, arXiv
            2204.02311, section 5).
        chunk: positions whose logits are held at once; None holds all.

    Returns:
        The sum, an fp32 scalar to be differentiated, and the cross-entropy of each target, (n,) fp32, which is not: 0
        where ignored, and without the z-loss.
    """
    return _HeadLoss.apply(hidden, head, targets, bias, z_loss, chunk)  # type: ignore[no-any-return,no-untyped-call]


class _LayerNorm(torch.autograd.Function):
    """Forward as the rows come; backward in fp32: the kernel of bf16 adds the gradient of the weight up in bf16 too,
    and errs by a twentieth."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        out, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, mean, scale, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x, mean, scale, weight, bias = ctx.saved_tensors
        wanted = [True, True, bias is not None]
        by_x, by_weight, by_bias = torch.ops.aten.native_layer_norm_backward(
            grad.float(), x.float(), weight.shape, mean.float(), scale.float(), weight, bias, wanted
        )
        return by_x.to(x.dtype), by_weight, by_bias if bias is not None else None, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)  # which may be written to
        scale = torch.rsqrt(torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1] + eps)
        ctx.save_for_backward(x, scale, weight)
        return wide.mul_(scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, weight = ctx.saved_tensors
        if weight.dim() == 1 and x.is_cpu:
            # LayerNorm's backward in one pass, told that the mean is 0. It takes away what the mean would have
            # contributed, the mean of grad * weight; that is given back.
            mean, wanted = torch.zeros_like(scale), [True, True, False]
            by_x, by_weight, _ = torch.ops.aten.native_layer_norm_backward(
                grad.contiguous(), x, weight.shape, mean, scale, weight.float(), None, wanted
            )
            taken = (grad @ weight.to(grad.dtype))[..., None] * (scale / x.shape[-1])
            return by_x.add_(taken.to(by_x.dtype)), by_weight.to(weight.dtype), None
        normal = x.to(torch.float32, copy=True).mul_(scale)
        wide = grad.to(torch.float32, copy=True)
        product = wide * normal
        by_weight = product.flatten(0, -1 - weight.dim()).sum(0)
        mean = product.mul_(weight).mean(-1, keepdim=True)
        return wide.mul_(weight).addcmul_(normal, mean, value=-1).mul_(scale).to(grad.dtype), by_weight, None


class _Rotate(torch.autograd.Function):
    """On whole heads, beside a copy with its halves exchanged: rows half as long cost as much again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        cosine, sine = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        ctx.save_for_backward(cosine, sine)
        return (x * cosine).addcmul_(x.roll(x.shape[-1] // 2, -1), sine)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return (grad * cosine).addcmul_(grad.roll(grad.shape[-1] // 2, -1), sine, value=-1), None, None


class _RMSNormRotate(torch.autograd.Function):
    """With z = x / rms(x), the output is z·C + roll(z)·S: the weight is in C and S, and what a row is divided by
    comes last. Backward, r is the gradient before the rotation; sums over a head, and over the rows of a head, are
    products with a matrix. A few rows of the batch at a time, so that they stay in cache from one pass to the next."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, cosine: Tensor, sine: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        weight_here = weight.to(x.dtype)
        cosine, sine = torch.cat((cosine, cosine), -1), torch.cat((-sine, sine), -1)
        by_x, by_rolled = cosine * weight_here, sine * weight_here.roll(half, -1)
        rows = _rows_in_cache(x)
        out = torch.empty(x.shape, dtype=x.dtype)
        scales = []
        for index, (part, into) in enumerate(zip(torch.split(x, rows), torch.split(out, rows), strict=True)):
            norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True, dtype=torch.float32)
            scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
            torch.mul(part, _rows_of(by_x, index, rows), out=into)
            into.addcmul_(part.roll(half, -1), _rows_of(by_rolled, index, rows)).mul_(scale.to(x.dtype))
            scales.append(scale)
        ctx.save_for_backward(x, weight, cosine, sine, *scales)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, weight, cosine, sine, *scales = ctx.saved_tensors
        heads, width = weight.shape
        weight_here = weight.to(x.dtype)
        # Contiguous, so that each pass is one long row.
        cosine, sine = (part.expand(*part.shape[:-2], heads, width).contiguous() for part in (cosine, sine))
        over_heads = (weight_here[..., None] * torch.eye(heads, dtype=x.dtype)[:, None]).view(heads * width, heads)
        rows = _rows_in_cache(x)
        by_x, by_weight = torch.empty(x.shape, dtype=x.dtype), torch.zeros_like(weight)
        parts = zip(torch.split(x, rows), torch.split(grad, rows), torch.split(by_x, rows), scales, strict=True)
        for index, (part, g, r, scale) in enumerate(parts):
            torch.mul(g, _rows_of(cosine, index, rows), out=r)
            r.addcmul_(g.roll(width // 2, -1), _rows_of(sine, index, rows), value=-1)
            product = (part * r).view(-1, heads * width)
            scale_here = scale.to(x.dtype)
            by_weight += (scale_here.view(-1, heads).mT @ product).view(heads, heads, width).diagonal().mT
            dot = (product @ over_heads).view(scale.shape)
            along = scale.pow(3).mul_(dot).div_(width).to(x.dtype)
            r.mul_(weight_here).mul_(scale_here).addcmul_(part, along, value=-1)
        return by_x, by_weight, None, None, None


def _rows_in_cache(x: Tensor) -> int:
    """How many rows of a batch fit into the cache of a core, several times over."""
    return max(1, CACHE // max(1, x[0].numel() * x.element_size()))


def _rows_of(angles: Tensor, index: int, rows: int) -> Tensor:
    """Of angles that each row of the batch has for itself, those of the rows at hand; of others, all."""
    return angles[index * rows : (index + 1) * rows] if angles.dim() == 4 else angles


class _Stacked(torch.autograd.Function):
    """In one pass over memory, where a cast and a copy of what was cast are two."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        ctx.rows, ctx.kinds = [len(weight) for weight in weights], [weight.dtype for weight in weights]
        out = torch.empty(sum(ctx.rows), weights[0].shape[1], dtype=dtype, device=weights[0].device)
        for part, weight in zip(torch.split(out, ctx.rows), weights, strict=True):
            part.copy_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = zip(torch.split(grad, ctx.rows), ctx.kinds, strict=True)
        return None, *(part.to(kind) for part, kind in parts)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_and_up: Tensor) -> Tensor:
        gate, up = gate_and_up.chunk(2, -1)
        active = F.silu(gate)
        ctx.save_for_backward(gate_and_up, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gate_and_up, active = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, -1)
        both = torch.empty_like(gate_and_up)
        by_gate, by_up = both.chunk(2, -1)
        torch.mul(grad, active, out=by_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=by_gate)
        return both


class _Attend(torch.autograd.Function):
    """By blocks of queries, each against the keys up to its last (half the work of the full square), or, where it may
    look ahead, against all: on a CPU two to three times as fast as the fused kernel at these lengths."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, causal: bool) -> Tensor:
        batch, time, heads, e = query.shape
        kv = key.shape[2]
        group = heads // kv
        q = query.view(batch, time, kv, group, e).permute(0, 2, 3, 1, 4).contiguous()
        k = key.transpose(1, 2).reshape(batch * kv, time, e)
        v = value.transpose(1, 2).reshape(batch * kv, time, e)
        out = torch.empty_like(q)
        probabilities = []
        for start in range(0, time, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, time)
            end = stop if causal else time
            block = q[:, :, :, start:stop].reshape(batch * kv, group * (stop - start), e)
            scores = torch.bmm(block, k[:, :end].mT)
            if seen is not None:
                by_row = scores.view(batch, kv, group, stop - start, end)
                by_row.add_(seen[:, None, None, start:stop, :end])
            p = torch.softmax(scores, -1)
            probabilities.append(p)
            out[:, :, :, start:stop] = torch.bmm(p, v[:, :end]).view(batch, kv, group, stop - start, e)
        ctx.save_for_backward(q, k, v, *probabilities)
        return out.permute(0, 3, 1, 2, 4).reshape(batch, time, heads * e)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, *probabilities = ctx.saved_tensors
        batch, kv, group, time, e = q.shape
        g = grad.view(batch, time, kv, group, e).permute(0, 2, 3, 1, 4).contiguous()
        by_q = torch.empty_like(q)
        by_k = by_v = None
        # From the last block, which has all keys: what the others bring is added to it.
        for index, p in reversed(list(enumerate(probabilities))):
            start = index * QUERY_BLOCK
            stop = min(start + QUERY_BLOCK, time)
            end = p.shape[-1]
            rows = group * (stop - start)
            block = q[:, :, :, start:stop].reshape(batch * kv, rows, e)
            block_grad = g[:, :, :, start:stop].reshape(batch * kv, rows, e)
            by_scores = torch._softmax_backward_data(torch.bmm(block_grad, v[:, :end].mT), p, -1, q.dtype)
            by_q[:, :, :, start:stop] = torch.bmm(by_scores, k[:, :end]).view(batch, kv, group, stop - start, e)
            more_k, more_v = torch.bmm(by_scores.mT, block), torch.bmm(p.mT, block_grad)
            if by_k is None or by_v is None:
                # Several blocks add to the same keys: bf16 would lose what the later ones bring.
                sums = torch.float32 if len(probabilities) > 1 else q.dtype
                by_k, by_v = more_k.to(sums), more_v.to(sums)
            else:
                by_k[:, :end] += more_k
                by_v[:, :end] += more_v

        def back(x: Tensor | None) -> Tensor:
            assert x is not None
            return x.to(q.dtype).view(batch, kv, time, e).transpose(1, 2)

        return by_q.permute(0, 3, 1, 2, 4).reshape(batch, time, kv * group, e), back(by_k), back(by_v), None, None


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        z_loss: float,
        chunk: int | None,
    ) -> tuple[Tensor, Tensor]:
        parts = zip(torch.split(hidden, chunk or len(hidden)), torch.split(targets, chunk or len(targets)), strict=True)
        nats, squares, by_hidden = [], [], []
        by_head: Tensor | None = None
        by_bias: Tensor | None = None
        for x, y in parts:
            losses, log_z, p = _softmax_minus_target(x, head, y, bias, z_loss)
            valid = (y != IGNORED).to(p.dtype)[:, None]
            # Where nothing is learned the rows of `p` are not wiped: it is as large as the logits, and `x` is not.
            by_hidden.append((p @ head).mul_(valid))
            # The small one transposed: a product that begins with all of `p` the other way around takes a third longer.
            by_head = _add(by_head, ((x * valid).mT.contiguous() @ p).mT, chunk)
            if bias is not None:
                by_bias = _add(by_bias, (p.mT @ valid).flatten(), chunk)
            nats.append(losses)
            if log_z is not None:
                squares.append(log_z.square() * valid.flatten())
        each = torch.cat(nats)
        total = each.sum()
        if squares:
            total = total + z_loss * torch.cat(squares).sum()
        ctx.save_for_backward(
            torch.cat(by_hidden) if len(by_hidden) > 1 else by_hidden[0],
            by_head.to(head.dtype),  # type: ignore[union-attr]
            None if by_bias is None else by_bias.to(head.dtype),
        )
        ctx.mark_non_differentiable(each)
        return total, each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, Tensor | None, None, None]:
        by_hidden, by_head, by_bias = ctx.saved_tensors
        by_head = torch.mul(by_head, grad, out=torch.empty(by_head.shape, dtype=by_head.dtype, device=by_head.device))
        return by_hidden * grad, by_head, None, None if by_bias is None else by_bias * grad, None, None


def _softmax_minus_target(
    x: Tensor, head: Tensor, targets: Tensor, bias: Tensor | None, z_loss: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Cross-entropy of each row, 0 where ignored; log Z where it is asked for; the gradient of the sum by the logits,
    but for the rows that are ignored, which hold anything finite."""
    rows, vocabulary = x.shape[0], head.shape[0]
    logits = F.linear(x, head, bias)
    largest = logits.amax(-1).float() if z_loss else None
    p = torch.softmax(logits, -1)
    del logits
    # log Z = largest logit - log(its probability): two reads of what is there, and no second exponential.
    log_z = None if largest is None else largest - p.amax(-1).float().log()
    # A flat index: scatter on (n, vocabulary) costs as much as the softmax.
    at = torch.arange(rows, device=p.device) * vocabulary + targets.clamp_min(0)
    flat = p.view(-1)
    likely = flat[at]
    losses = -likely.float().clamp_min(torch.finfo(torch.float32).tiny).log()
    flat.index_fill_(0, at, 0.0)
    by_target = -p.sum(-1)  # p(target) - 1, exact also where p(target) is near 1
    if log_z is not None:
        slope = (2 * z_loss * log_z).to(p.dtype)  # of z_loss * log²Z, by log Z
        p.mul_((1 + slope)[:, None])
        by_target += slope * likely
    flat.index_copy_(0, at, by_target)
    return losses.masked_fill_(targets == IGNORED, 0.0), log_z, p


def _add(total: Tensor | None, part: Tensor, chunk: int | None) -> Tensor:
    """A sum over chunks, in fp32; of one part, the part itself."""
    if total is None:
        return part if chunk is None else part.float()
    return total.add_(part)
