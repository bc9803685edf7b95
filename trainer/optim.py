"""Muon for the matrices of the blocks, AdamW for everything else. Rates follow one schedule."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.recipe import Optimizer
from trainer.sharded import Exchange, as_part_of, gradient_of, holders, norm, part_of

# The first four steps of Polar Express (Amsel et al. 2025, arXiv 2505.16932). Singular values end within a factor of
# about 2.5 of 1: nearer trains no better and costs more (docs/log.md).
COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
)


class Optimizers:
    """Steps all parameters of a model; its state is a flat mapping of tensors, each spread as its parameter is.

    Made when the parameters are where they stay: spread over processes, on their device.
    """

    def __init__(self, section: Optimizer, model: nn.Module) -> None:
        named = dict(model.named_parameters())
        matrices = {name: p for name, p in named.items() if is_matrix(name, p)}
        self.section = section
        self.named = named
        self.muon = Muon(section, matrices) if section.matrices == "muon" else None
        # An update of AdamW is of single values: it takes the parts that are here for tensors of their own.
        self.parts = {
            name: nn.Parameter(part_of(p)) for name, p in named.items() if self.muon is None or name not in matrices
        }
        decayed = [part for name, part in self.parts.items() if name in matrices]
        others = [part for name, part in self.parts.items() if name not in matrices]
        groups = [{"params": others, "weight_decay": 0.0}]
        if decayed:
            groups.append({"params": decayed, "weight_decay": section.weight_decay})
        self.adamw = torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=True)
        for part in self.parts.values():
            zeros = {kind: torch.zeros_like(part.detach()) for kind in ("exp_avg", "exp_avg_sq")}
            self.adamw.state[part] = {"step": torch.zeros((), device=part.device), **zeros}

    @torch.no_grad()
    def step(self, factor: float, accepted: Tensor | None = None, divisor: Tensor | None = None) -> None:
        """Update every parameter from its gradient, at `factor` times its rate, and drop the gradients.

        Args:
            accepted: whether the step is taken, a bool scalar on the device of the parameters, which nobody waits
                for; None takes it.
            divisor: what the gradients are still to be divided by, an fp32 scalar that `clip` gave; None: nothing.
        """
        for group in self.adamw.param_groups:
            group["lr"] = self.section.lr * factor
        for name, part in self.parts.items():
            part.grad = part_of(gradient_of(self.named[name]))
        # The fused kernel leaves parameters and state alone where it is told that an overflow was found.
        self.adamw.found_inf = None if accepted is None else (~accepted).float()  # type: ignore[attr-defined]
        # It divides as it reads them: a pass over all gradients less.
        self.adamw.grad_scale = divisor  # type: ignore[attr-defined]
        self.adamw.step()
        if self.muon:
            self.muon.step(factor, accepted, divisor)
        for parameter in (*self.named.values(), *self.parts.values()):
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on besides the weights; names lead with the optimizer."""
        state = {}
        for name, part in self.parts.items():
            for kind, value in self.adamw.state[part].items():
                state[f"adamw.{kind}.{name}"] = value if kind == "step" else as_part_of(self.named[name], value)
        if self.muon:
            state |= {f"muon.momentum.{name}": value for name, value in self.muon.momentum().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state that `state()` gave. Raises KeyError when a tensor is missing."""
        for name, tensor in self.state().items():
            part_of(tensor).copy_(part_of(state[name]))


class Muon:
    """Momentum, orthogonalised: every update moves all directions of a matrix by the same amount.

    Update: momentum (Nesterov), Newton-Schulz, scaled by 0.2 * sqrt(max(rows, columns)) so that its RMS is that of an
    AdamW update (Liu et al. 2025, arXiv 2502.16982, eq. 4), with decoupled weight decay.

    The iteration needs whole matrices. Where processes hold parts, they share out the matrices of one shape: each
    orthogonalises its own ones (as Liu et al., algorithm 1, but every matrix in one process only).
    """

    def __init__(self, section: Optimizer, matrices: Mapping[str, nn.Parameter]) -> None:
        self.section = section
        self.matrices = matrices
        self.buffers = {name: torch.zeros_like(part_of(matrix)) for name, matrix in matrices.items()}
        # Matrices of one shape, up to transposition, go through the iteration together.
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name, matrix in matrices.items():
            groups.setdefault((tuple(sorted(matrix.shape)), holders(matrix)), []).append(name)
        self.groups = [(names, Exchange([matrices[name] for name in names])) for names in groups.values()]

    def step(self, factor: float, accepted: Tensor | None = None, divisor: Tensor | None = None) -> None:
        """Update the matrices from their gradients over `divisor`; where `accepted` is false, nothing changes."""
        lr, momentum = self.section.muon_lr * factor, self.section.muon_momentum
        kept = 1 - lr * self.section.weight_decay
        for names, exchange in self.groups:
            grads = [part_of(gradient_of(self.matrices[name])) for name in names]
            if divisor is not None:
                torch._foreach_div_(grads, divisor)
            buffers = [self.buffers[name] for name in names]
            before = None if accepted is None else [buffer.clone() for buffer in buffers]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            directions = [direction.bfloat16() for direction in torch._foreach_lerp(grads, buffers, momentum)]
            wholes = exchange.gather(directions)
            if wholes:
                done = orthogonalize(torch.stack([_wide(whole) for whole in wholes]))
                wholes = [_as(whole, update) for whole, update in zip(wholes, done, strict=True)]
            updates = exchange.scatter(wholes, directions[0])
            for index, (name, update) in enumerate(zip(names, updates, strict=True)):
                part, scale = part_of(self.matrices[name]), 0.2 * max(self.matrices[name].shape) ** 0.5
                if accepted is not None and before is not None:
                    buffers[index].copy_(torch.where(accepted, buffers[index], before[index]))
                    moved = (part * kept).add_(update.float(), alpha=-lr * scale)
                    part.copy_(torch.where(accepted, moved, part))
                else:
                    part.mul_(kept).add_(update.float(), alpha=-lr * scale)

    def momentum(self) -> dict[str, Tensor]:
        """The momentum of each matrix."""
        return {name: as_part_of(self.matrices[name], buffer) for name, buffer in self.buffers.items()}


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of a block: these are decayed, and Muon's. Embeddings, position vectors, the head
    and what a bidirectional model puts before it are not: their rows stand for tokens or are next to them."""
    return name.startswith("blocks.") and parameter.dim() == 2


def orthogonalize(matrices: Tensor) -> Tensor:
    """Replace the singular values of each matrix by values near 1.

    matrices: (n, rows, columns) with rows <= columns, any float dtype. Returns bf16 of the same shape.
    """
    x = matrices.to(torch.bfloat16)
    # A little below 1, where rounding cannot push the largest singular value out of the range of convergence.
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], limit: float, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The joint norm of the mean gradient, and what makes of summed gradients means whose joint norm is at most
    `limit` when they are divided by it. The same in every process; the gradients stay as they are.

    Args:
        targets: what the gradients are the sum over, a scalar.
    """
    mean = norm(gradient_of(parameter) for parameter in parameters) / targets
    return mean, targets * ((mean + 1e-6) / limit).clamp(min=1.0)


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _as(parameter: Tensor, wide: Tensor) -> Tensor:
    return wide if parameter.shape == wide.shape else wide.mT
