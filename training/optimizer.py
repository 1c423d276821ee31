"""The optimizers of the training commands."""

from __future__ import annotations

import torch
from torch import nn

OPTIMIZERS = ("adam", "muon")

# Newton-Schulz polynomial x -> a x + b x^3 + c x^5 and its steps: five bring all singular values close to one.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95


class MuonWithAdam:
    """Muon for the hidden convolutions, Adam for the first one, the last one, biases and norms.

    Muon replaces the momentum of a weight matrix [out, in * k * k] by the nearest matrix with orthonormal rows or columns,
    so that a step moves along all directions alike, not only along the few that dominate the gradient. Steps are scaled
    to a root mean square of `learning_rate` per entry, about what Adam's are.

    Has what the training loop uses of `torch.optim.Optimizer`: `param_groups`, `zero_grad`, `step`, `state_dict`,
    `load_state_dict`.
    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(self, net: nn.Module, learning_rate: float):
        convolutions = [p for p in net.parameters() if p.dim() == 4]
        hidden = {id(p) for p in convolutions[1:-1]}
        self._hidden = [p for p in net.parameters() if id(p) in hidden]
        self._momenta = [torch.zeros_like(p) for p in self._hidden]
        self._adam = torch.optim.Adam([p for p in net.parameters() if id(p) not in hidden], lr=learning_rate, fused=True)

    @property
    def param_groups(self) -> list[dict]:
        """Adam's groups; Muon follows the rate of the first."""
        return self._adam.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._adam.zero_grad(set_to_none)
        for weight in self._hidden:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self._adam.step()
        rate = self.param_groups[0]["lr"]
        moving, directions = [], []
        for weight, momentum in zip(self._hidden, self._momenta):
            if weight.grad is not None:
                momentum.lerp_(weight.grad, 1 - _MOMENTUM)
                moving.append(weight)
                # Kernel positions before input channels: a view, for the channels-last weights of training.
                directions.append(torch.lerp(weight.grad, momentum, _MOMENTUM).permute(0, 2, 3, 1))
        matrices = orthogonalised([direction.flatten(1) for direction in directions])
        for weight, direction, matrix in zip(moving, directions, matrices):
            step = matrix.reshape(direction.shape).permute(0, 3, 1, 2)
            weight.add_(step, alpha=-rate * max(matrix.shape) ** 0.5)

    def state_dict(self) -> dict:
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict) -> None:
        self._adam.load_state_dict(state["adam"])
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


Optimizer = torch.optim.Adam | MuonWithAdam


def build_optimizer(name: str, net: nn.Module, learning_rate: float) -> Optimizer:
    """The optimizer called `name` over all parameters of `net`; ValueError for an unknown name."""
    if name == "adam":
        return torch.optim.Adam(net.parameters(), lr=learning_rate, fused=True)
    if name == "muon":
        return MuonWithAdam(net, learning_rate)
    raise ValueError(f"unknown --optimizer {name!r}; choose from {list(OPTIMIZERS)}")


def orthogonalised(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """Float32 matrices with the given ones' singular vectors and with all singular values near one (0.7 to 1.2).

    Works on the small Gram matrices, those of one size at once: x -> p(x x^T) x leaves x as the last factor of every
    iteration, so that only the first and the last product see the whole of x.
    """
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    wide = [x / x.norm().clamp(min=1e-7) for x in wide]
    results: list[torch.Tensor] = list(wide)
    for size in sorted({x.shape[0] for x in wide}):
        members = [i for i, x in enumerate(wide) if x.shape[0] == size]
        factors = _iterated_polynomial(torch.stack([wide[i] @ wide[i].T for i in members]))
        for i, factor in zip(members, factors):
            results[i] = factor @ wide[i]
    return [y.T if matrix.shape[0] > matrix.shape[1] else y for matrix, y in zip(matrices, results)]


def _iterated_polynomial(gram_Nnn: torch.Tensor) -> torch.Tensor:
    """The factors [N, n, n] that the iterations put before matrices whose Gram matrices are given."""
    a, b, c = _COEFFICIENTS
    product_Nnn = None
    for iteration in range(_ITERATIONS):
        factor_Nnn = torch.baddbmm(gram_Nnn, gram_Nnn, gram_Nnn, beta=b, alpha=c)
        factor_Nnn.diagonal(dim1=1, dim2=2).add_(a)
        product_Nnn = factor_Nnn if product_Nnn is None else factor_Nnn @ product_Nnn
        if iteration + 1 < _ITERATIONS:
            gram_Nnn = factor_Nnn @ gram_Nnn @ factor_Nnn
    return product_Nnn
