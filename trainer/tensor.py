"""Tensor parallelism: processes that share every matrix product, with the sequence and the vocabulary split among them.

Attention and MLP begin with matrices of which each process has some rows (its heads, its part of the hidden size), and
end with one of which it has the columns to match (Megatron-LM, arXiv 1909.08053). Between the blocks each process holds
a part of the sequence (arXiv 2205.05198): it is gathered before attention and MLP, and what comes out of them is summed
and split again in one exchange. Embedding and head are split by the vocabulary, and nobody ever holds all logits.

The model knows nothing of it: the forward of some of its modules is replaced here. A weight is a DTensor, of which
`kernels.local` gives the model the part that is here. Every gradient that is not of a split weight is a sum over these
processes that is still to be taken: each saw a part of the sequence, of the heads or of the vocabulary.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, Replicate, Shard, distribute_tensor

from trainer.kernels import local
from trainer.masking import IGNORED
from trainer.model import MLP, Attention, Transformer

ROWS = ("query", "key", "value", "gate", "up")  # split by rows, with their biases
COLUMNS = ("output", "down")  # split by columns
VOCABULARY = ("embedding.weight", "head.weight", "logit_bias")  # split by rows
SEQUENCE = 1  # the dimension of (batch, time, width) that is split between the blocks


def split(model: Transformer, mesh: DeviceMesh) -> None:
    """Leave this process its part of the weights, and make the model exchange what the parts need of one another.

    The weights become DTensors on the mesh, which has one dimension; they may be on the meta device.
    """
    for name, module in list(model.named_modules()):
        for kind, parameter in list(module.named_parameters(recurse=False)):
            placement = _placement(f"{name}.{kind}" if name else kind)
            part = distribute_tensor(parameter.detach(), mesh, [placement], src_data_rank=None)
            module.register_parameter(kind, nn.Parameter(part))
    ours = Tensors(mesh)
    _replace(model.embedding, ours.look_up)
    if model.positions is not None:
        _replace(model.positions, ours.place)
    for module in model.modules():
        if isinstance(module, Attention | MLP):
            _replace(module, ours.on_whole_sequence)
            _replace(module.output if isinstance(module, Attention) else module.down, ours.multiply_columns)
    model.hidden = partial(ours.hidden, model.hidden)  # type: ignore[method-assign]
    model.logits = partial(ours.logits, model.logits)  # type: ignore[method-assign]
    model.head_loss = ours.head_loss


def _placement(name: str) -> Placement:
    owner, _, kind = name.rpartition(".")
    matrix = owner.rpartition(".")[2]
    if name in VOCABULARY or matrix in ROWS:
        return Shard(0)
    return Shard(1) if matrix in COLUMNS and kind == "weight" else Replicate()


def _replace(module: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Let `forward`, which takes the module and its own forward before its arguments, run in place of the latter."""
    before = module.forward
    module.forward = lambda *args, **kwargs: forward(module, before, *args, **kwargs)


class Tensors:
    """The processes that share the products of this one."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.group = mesh.get_group()
        self.rank, self.size = mesh.get_local_rank(), mesh.size()

    def gather(self, x: Tensor) -> Tensor:
        """The whole sequence from its parts."""
        return _Gather.apply(x, self.group)  # type: ignore[no-any-return,no-untyped-call]

    def scatter(self, x: Tensor) -> Tensor:
        """A part of the sequence, summed over the processes."""
        return _Scatter.apply(x, self.group)  # type: ignore[no-any-return,no-untyped-call]

    def hidden(
        self,
        before: Callable[..., Tensor],
        tokens: Tensor,
        document: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """`Transformer.hidden` of the whole sequence; one that has no equal parts is filled up, as another document."""
        time, missing = tokens.shape[1], -tokens.shape[1] % self.size
        if missing:
            document = F.pad(torch.zeros_like(tokens) if document is None else document, (0, missing), value=-1)
            tokens = F.pad(tokens, (0, missing))
            positions = None if positions is None else F.pad(positions, (0, missing))
        whole = self.gather(before(tokens, document, positions))
        return whole[:, :time] if missing else whole

    @torch.no_grad()
    def logits(self, before: Callable[..., Tensor], hidden: Tensor) -> Tensor:
        """`Transformer.logits` of the whole vocabulary, for scores: nothing is learned from them."""
        return torch.cat(collectives.all_gather_single(before(hidden)[None], 0, self.group).unbind(0), -1)

    def look_up(self, module: Any, _: Callable[..., Tensor], tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """An embedding by the vocabulary: each process looks up what it has."""
        weight = local(module.weight)
        own = tokens - self.rank * len(weight)
        elsewhere = (own < 0) | (own >= len(weight))
        x = F.embedding(own.masked_fill(elsewhere, 0), weight.to(dtype))
        return self.scatter(x.masked_fill(elsewhere[..., None], 0.0))

    def place(self, _: Any, look_up: Callable[..., Tensor], positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Learned positions, of this process' part of the sequence."""
        return look_up(positions.chunk(self.size, -1)[self.rank], dtype)

    def on_whole_sequence(self, _: Any, forward: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor:
        """Attention or MLP."""
        return forward(self.gather(x), *others)

    def multiply_columns(self, module: Any, _: Callable[..., Tensor], x: Tensor) -> Tensor:
        """A matrix by columns: every process has a summand. The bias is added once, when the sum is taken."""
        y = self.scatter(F.linear(x, local(module.weight).to(x.dtype)))
        return y if module.bias is None else y + local(module.bias).to(x.dtype)

    def head_loss(
        self,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        bias: Tensor | None = None,
        z_loss: float = 0.0,
        chunk: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`kernels.head_loss` where head and bias are this process' part of the vocabulary."""
        return _HeadLoss.apply(  # type: ignore[no-any-return,no-untyped-call]
            hidden, head, targets, bias, z_loss, chunk, self.group, self.rank * len(head)
        )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _scattered(grad, ctx.group), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _scattered(x, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _gathered(grad, ctx.group), None


def _gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return _done(collectives.all_gather_single(x.contiguous(), SEQUENCE, group))


def _scattered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return _done(collectives.reduce_scatter_single(x.contiguous(), "sum", SEQUENCE, group))


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy over a vocabulary that is split: of the logits only the largest, the sum of exponentials and the
    target's are exchanged. The gradient is found on the way forward, as in `kernels`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        z_loss: float,
        chunk: int | None,
        group: dist.ProcessGroup,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        size = chunk or len(hidden)
        nats, squares, by_hidden = [], [], []
        by_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        by_bias = None if bias is None else torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)
        for x, y in zip(torch.split(hidden, size), torch.split(targets, size), strict=True):
            logits = F.linear(x, head, bias).float()
            largest = _summed(logits.amax(-1), "max", group)
            own = y - first
            here = (own >= 0) & (own < len(head))
            own = own.clamp(0, len(head) - 1)[:, None]
            likely = torch.where(here, logits.gather(1, own)[:, 0] - largest, 0.0)
            p = logits.sub_(largest[:, None]).exp_()
            normaliser, likely = _summed(torch.stack((p.sum(-1), likely)), "sum", group)
            valid = y != IGNORED
            nats.append(torch.where(valid, normaliser.log() - likely, 0.0))
            log_z = torch.where(valid, normaliser.log() + largest, 0.0)
            squares.append(log_z.square())
            p.mul_(((1 + 2 * z_loss * log_z) / normaliser)[:, None])
            p.scatter_add_(1, own, -here.float()[:, None])
            p = p.mul_(valid[:, None]).to(head.dtype)
            by_hidden.append(p @ head)
            by_head += p.mT @ x
            if by_bias is not None:
                by_bias += p.sum(0)
        each = torch.cat(nats)
        total = each.sum() + z_loss * torch.cat(squares).sum()
        ctx.save_for_backward(
            torch.cat(by_hidden), by_head.to(head.dtype), None if by_bias is None else by_bias.to(head.dtype)
        )
        ctx.mark_non_differentiable(each)
        return total, each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_head, by_bias = ctx.saved_tensors
        return by_hidden * grad, by_head * grad, None, None if by_bias is None else by_bias * grad, *[None] * 4


def _summed(x: Tensor, how: str, group: dist.ProcessGroup) -> Tensor:
    return _done(collectives.all_reduce(x, how, group))


def _done(x: Tensor) -> Tensor:
    return collectives.wait_tensor(x)  # type: ignore[no-any-return,no-untyped-call]
