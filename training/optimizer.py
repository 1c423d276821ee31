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

    def __init__(self, net: nn.Module, learning_rate: float, dtype: torch.dtype = torch.float32):
        convolutions = [p for p in net.parameters() if p.dim() == 4]
        hidden = {id(p) for p in convolutions[1:-1]}
        self._hidden = [p for p in net.parameters() if id(p) in hidden]
        self._momenta = [torch.zeros_like(p) for p in self._hidden]
        self._dtype = dtype
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
        for weight, momentum in zip(self._hidden, self._momenta):
            if weight.grad is None:
                continue
            momentum.lerp_(weight.grad, 1 - _MOMENTUM)
            nesterov = torch.lerp(weight.grad, momentum, _MOMENTUM)
            # Kernel positions before input channels: a view, for the channels-last weights of training.
            rows = nesterov.permute(0, 2, 3, 1)
            matrix = orthogonalised(rows.flatten(1).to(self._dtype)).to(weight.dtype)
            step = matrix.view(rows.shape).permute(0, 3, 1, 2)
            weight.add_(step, alpha=-rate * max(matrix.shape) ** 0.5)

    def state_dict(self) -> dict:
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict) -> None:
        self._adam.load_state_dict(state["adam"])
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


Optimizer = torch.optim.Adam | MuonWithAdam


def build_optimizer(name: str, net: nn.Module, learning_rate: float, *, bf16: bool) -> Optimizer:
    """The optimizer called `name` over all parameters of `net`.

    Args:
        bf16: whether the device multiplies bfloat16 matrices quickly; Muon then uses them inside.
    Raises:
        ValueError: an unknown name.
    """
    if name == "adam":
        return torch.optim.Adam(net.parameters(), lr=learning_rate, fused=True)
    if name == "muon":
        return MuonWithAdam(net, learning_rate, torch.bfloat16 if bf16 else torch.float32)
    raise ValueError(f"unknown --optimizer {name!r}; choose from {list(OPTIMIZERS)}")


def orthogonalised(matrix_NM: torch.Tensor) -> torch.Tensor:
    """A matrix with the singular vectors of `matrix_NM` and all non-zero singular values near one (0.7 to 1.2)."""
    a, b, c = _COEFFICIENTS
    x = matrix_NM.T if matrix_NM.shape[0] > matrix_NM.shape[1] else matrix_NM
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix_NM.shape[0] > matrix_NM.shape[1] else x
