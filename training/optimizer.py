"""The optimizers of the training commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.adam import adam

from networks import DenseNetwork, parameter_roles

OPTIMIZERS = ("adam", "muon")

# Newton-Schulz polynomial x -> a x + b x^3 + c x^5 and its steps: five bring all singular values close to one.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5

Optimizer = torch.optim.Optimizer


class Muon(torch.optim.Optimizer):
    """Muon for the weights of the groups with `use_muon`, Adam for all others.

    Muon replaces the momentum of a weight matrix [out, in * k * k] by the nearest matrix with orthonormal rows or columns,
    so that a step moves along all directions alike, not only along the few that dominate the gradient. Steps are scaled
    to a root mean square of the learning rate per entry, about what Adam's are.

    Args:
        groups: dictionaries with `params`, `use_muon` (weights of at least two dimensions, the first one the output's)
            and, where they differ from the following, options.
        lr: learning rate.
        momentum: of Muon's groups.
        betas, eps: of Adam's groups.
    Raises:
        ValueError: a group without `use_muon`, or a vector in a group of Muon's.
    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        # `fused` makes the base class put Adam's step counters on the parameters' device when a state is loaded.
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "fused": True})
        self.register_load_state_dict_post_hook(match_state_layouts)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if not isinstance(param_group, dict) or not isinstance(param_group.get("use_muon"), bool):
            raise ValueError("every group of parameters says use_muon: True or False")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["use_muon"] and (flat := [tuple(p.shape) for p in group["params"] if p.dim() < 2]):
            del self.param_groups[-1]
            raise ValueError(f"Muon moves weight matrices; a group of it has a parameter of shape {flat[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._muon_step if group["use_muon"] else self._adam_step)(group, moving)
        return loss

    def _muon_step(self, group: dict[str, Any], weights: list[torch.Tensor]) -> None:
        directions = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
            # Kernel positions before input channels: a view, for the channels-last weights of training.
            directions.append(torch.lerp(weight.grad, momentum, group["momentum"]).movedim(1, -1))
        matrices = orthogonalised([direction.flatten(1) for direction in directions])
        for weight, direction, matrix in zip(weights, directions, matrices):
            step = matrix.reshape(direction.shape).movedim(-1, 1)
            weight.add_(step, alpha=-group["lr"] * max(matrix.shape) ** 0.5)

    def _adam_step(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter].update(
                    step=torch.zeros((), dtype=torch.float32, device=parameter.device),
                    exp_avg=torch.zeros_like(parameter),
                    exp_avg_sq=torch.zeros_like(parameter),
                )
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adam(
            parameters,
            [_laid_out_as(parameter.grad, parameter) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


def build_optimizer(name: str, net: DenseNetwork, learning_rate: float) -> Optimizer:
    """The optimizer called `name` over all parameters of `net`; ValueError for an unknown name."""
    if name == "adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, fused=True)
        optimizer.register_load_state_dict_post_hook(match_state_layouts)
        return optimizer
    if name == "muon":
        roles = parameter_roles(net)
        groups = [{"params": roles["hidden"], "use_muon": True}, {"params": roles["rest"], "use_muon": False}]
        return Muon(groups, learning_rate)
    raise ValueError(f"unknown --optimizer {name!r}; choose from {list(OPTIMIZERS)}")


def match_state_layouts(optimizer: Optimizer) -> None:
    """Gives the moments of a loaded state the memory layout of their parameters.

    The fused Adam on CPUs walks through memory and takes one layout for all: a state that was saved with contiguous
    weights would, with channels-last ones, silently belong to other entries.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[key] = _laid_out_as(value, parameter)


def _laid_out_as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


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
