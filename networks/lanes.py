"""A network's forward and backward pass on several cores: parts of the batch side by side, each on one thread.

The split is a property of the run, not of the machine's load: the same parts give the same bits, whether they run side by
side or one after the other. Faster than threads within the operations beside other jobs, and no slower alone
(`python benchmarks/contention.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

Output = tuple[torch.Tensor, torch.Tensor | None]


class Lanes:
    """Runs `net` on the parts of a batch. For networks whose images do not depend on each other (no batch norm).

    `prediction, sigma = lanes(images)`, then `loss(prediction, sigma).backward()`, then `lanes.backward()` leaves the
    gradients in the network's parameters. Autocast and the gradient mode are those of the caller.
    """

    def __init__(self, net: nn.Module, *, parts: int, lanes: int):
        """
        Args:
            parts: into how many parts a batch is split (at most its images); decides the last bits of the gradients.
                1: the plain network in the caller's thread, on any device.
            lanes: how many parts run at once; decides nothing but the time.
        Raises:
            ValueError: a number is below 1.
        """
        if parts < 1 or lanes < 1:
            raise ValueError(f"parts and lanes must be at least 1, got {parts} and {lanes}")
        self.parts = parts
        self._net = net
        self._pool = ThreadPoolExecutor(min(lanes, parts), thread_name_prefix="lane") if parts > 1 else None
        self._inside: list[Output] = []
        self._outside: Output | None = None
        if parts > 1:
            torch.set_num_threads(1)

    def __call__(self, images_BCHW: torch.Tensor) -> Output:
        """(prediction, sigma) of the whole batch, in its order."""
        if self._pool is None:
            return self._net(images_BCHW)
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def run(part_BCHW: torch.Tensor) -> Output:
            # All of these belong to a thread.
            with torch.inference_mode(inference), torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, autocast):
                return self._net(part_BCHW)

        outputs = list(self._pool.map(run, images_BCHW.tensor_split(min(self.parts, len(images_BCHW)))))
        sigmas = [sigma for _, sigma in outputs if sigma is not None]
        whole = (
            torch.cat([prediction for prediction, _ in outputs]).detach(),
            torch.cat(sigmas).detach() if sigmas else None,
        )
        if grad and not inference:
            # The loss ends at these copies; backward() goes on from there, part by part.
            self._inside, self._outside = outputs, tuple(t if t is None else t.requires_grad_() for t in whole)
        return whole

    def backward(self) -> None:
        """Carries the gradients of the last outputs on to the parameters' `.grad` (added, as backward() does)."""
        if self._pool is None:
            return
        if self._outside is None:
            raise RuntimeError("backward() without a forward pass")
        parameters = [parameter for parameter in self._net.parameters() if parameter.requires_grad]
        sizes = [len(prediction) for prediction, _ in self._inside]
        outer = [t for t in self._outside if t is not None and t.grad is not None]
        kept = [i for i, t in enumerate(self._outside) if t is not None and t.grad is not None]
        slices = zip(*(t.grad.split(sizes) for t in outer), strict=True)
        inside = [[output[i] for i in kept] for output in self._inside]

        def run(part: tuple) -> tuple[torch.Tensor | None, ...]:
            outputs, gradients = part
            return torch.autograd.grad(outputs, parameters, gradients, allow_unused=True)

        per_part = list(self._pool.map(run, zip(inside, slices, strict=True)))
        self._inside, self._outside = [], None
        for parameter, gradients in zip(parameters, zip(*per_part, strict=True), strict=True):
            for gradient in gradients:  # in the order of the parts: sums of floats depend on it
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def close(self) -> None:
        """Ends the lanes' threads."""
        if self._pool is not None:
            self._pool.shutdown()
