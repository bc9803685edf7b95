"""Muon for the matrices of the blocks, AdamW for everything else. Rates follow one schedule."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trainer.recipe import Optimizer

# The first four steps of Polar Express (Amsel et al. 2025, arXiv 2505.16932). Singular values end within a factor of
# about 2.5 of 1: nearer trains no better and costs more (docs/log.md).
COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
)


class Optimizers:
    """Steps all parameters of a model; its state is a flat mapping of tensors."""

    def __init__(self, section: Optimizer, model: nn.Module) -> None:
        named = dict(model.named_parameters())
        matrices = {name: p for name, p in named.items() if name.startswith("blocks.") and p.dim() == 2}
        self.named = named
        self.muon = Muon(section, matrices) if section.matrices == "muon" else None
        rest = {name: p for name, p in named.items() if self.muon is None or name not in matrices}
        decayed = [p for name, p in rest.items() if name in matrices]
        others = [p for name, p in rest.items() if name not in matrices]
        groups = [{"params": others, "weight_decay": 0.0}]
        if decayed:
            groups.append({"params": decayed, "weight_decay": section.weight_decay})
        self.section = section
        self.adamw = torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=True)
        for parameter in rest.values():
            # What AdamW makes at its first step; made here, a state has all its tensors before anything is loaded.
            self.adamw.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update every parameter from its gradient, at `factor` times its rate, and drop the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = self.section.lr * factor
        self.adamw.step()
        if self.muon:
            self.muon.step(factor)
        for parameter in self.named.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on besides the weights; names lead with the optimizer."""
        state = {}
        for name, parameter in self.named.items():
            for kind, value in self.adamw.state.get(parameter, {}).items():
                state[f"adamw.{kind}.{name}"] = value
        if self.muon:
            state |= {f"muon.momentum.{name}": value for name, value in self.muon.momentum().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state that `state()` gave."""
        for name, parameter in self.named.items():
            kinds = {kind: state.get(f"adamw.{kind}.{name}") for kind in ("step", "exp_avg", "exp_avg_sq")}
            if all(value is not None for value in kinds.values()):
                self.adamw.state[parameter] = {
                    kind: value.clone() for kind, value in kinds.items() if value is not None
                }
        if self.muon:
            prefix = "muon.momentum."
            self.muon.load({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


class Muon:
    """Momentum, orthogonalised: every update moves all directions of a matrix by the same amount.

    Update: momentum (Nesterov), Newton-Schulz, scaled by 0.2 * sqrt(max(rows, columns)) so that its RMS is that of an
    AdamW update (Liu et al. 2025, arXiv 2502.16982, eq. 4), with decoupled weight decay.
    """

    def __init__(self, section: Optimizer, matrices: Mapping[str, nn.Parameter]) -> None:
        self.section = section
        # Matrices of one shape, up to transposition, go through the iteration together.
        self.groups: dict[tuple[int, ...], dict[str, nn.Parameter]] = {}
        for name, matrix in matrices.items():
            self.groups.setdefault(tuple(sorted(matrix.shape)), {})[name] = matrix
        self.buffers = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    def step(self, factor: float) -> None:
        """Update the matrices from their gradients."""
        lr, momentum = self.section.muon_lr * factor, self.section.muon_momentum
        for shape, group in self.groups.items():
            grads = torch.stack([_wide(_gradient(p)) for p in group.values()])
            buffer = self.buffers[shape]
            buffer.lerp_(grads, 1 - momentum)
            updates = orthogonalize(torch.lerp(grads, buffer, momentum))
            for parameter, update in zip(group.values(), updates.float(), strict=True):
                parameter.mul_(1 - lr * self.section.weight_decay)
                parameter.add_(_as(parameter, update), alpha=-lr * 0.2 * max(shape) ** 0.5)

    def momentum(self) -> dict[str, Tensor]:
        """The momentum of each matrix, in its own shape."""
        return {
            name: _as(parameter, buffer).contiguous()
            for shape, group in self.groups.items()
            for (name, parameter), buffer in zip(group.items(), self.buffers[shape], strict=True)
        }

    def load(self, momentum: Mapping[str, Tensor]) -> None:
        """Take up what `momentum()` gave."""
        for shape, group in self.groups.items():
            for index, name in enumerate(group):
                self.buffers[shape][index].copy_(_wide(momentum[name]))


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


def clip_(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their joint norm is at most `limit`; return the norm before."""
    return nn.utils.clip_grad_norm_(list(parameters), limit, foreach=True)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter took no part in the loss")
    return parameter.grad


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _as(parameter: Tensor, wide: Tensor) -> Tensor:
    return wide if parameter.shape == wide.shape else wide.mT
