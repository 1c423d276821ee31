"""The processes that train one network together: torch.distributed as `torchrun` starts it, or one process alone.

A step belongs to all of them: each takes its share of the global batch, losses and gradients are weighted by the images
behind them, and what stops or steers a run is agreed upon, so that a run is the same whatever their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from loss import LossResult
from runs.device import choose_device

T = TypeVar("T")
_STOPPED = "processes that stopped with an error"


class PeerStopped(RuntimeError):
    """Another process of the run stopped first and says why; the cause is what this one noticed of it."""


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run.

    Attributes:
        device: what this process computes on.
        number, count: this process, from 0, and how many there are on all machines.
        local_count: how many there are on this machine.
    """

    device: torch.device
    number: int = 0
    count: int = 1
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reads and writes the run's files."""
        return self.number == 0

    def place_of(self, images: int) -> tuple[int, int]:
        """Where this process's part of a global batch begins, and how many images it has; there may be none."""
        size, larger = divmod(images, self.count)
        return self.number * size + min(self.number, larger), size + (self.number < larger)

    def share_of(self, draws: Sequence[int]) -> list[int]:
        """This process's part of a global batch; without one, the first image for company, which counts nothing."""
        first, images = self.place_of(len(draws))
        return list(draws[first : first + images]) or [draws[0]]

    def first_decides(self, function: Callable[[], T]) -> T:
        """What `function` gives in the first process, for all of them.

        Raises:
            PeerStopped: it failed there. In the first process: whatever it raised.
        """
        if self.count == 1:
            return function()
        told: list = [None]
        try:
            if self.first:
                told = [(function(),)]
        finally:
            dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        if told[0] is None:
            raise PeerStopped("the first process failed")
        return told[0][0]

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number over all processes."""
        if self.count == 1:
            return list(numbers)
        # On the CPU, for which no GPU is waited for.
        largest_N = torch.tensor(numbers)
        dist.all_reduce(largest_N, dist.ReduceOp.MAX)
        return largest_N.tolist()

    def weighted(self, loss: torch.Tensor, share: float) -> torch.Tensor:
        """A loss whose gradient, averaged over the processes as DistributedDataParallel does, is that of the whole batch.

        Args:
            share: of the global batch's images, that the loss is the mean over.
        """
        return loss if self.count == 1 else loss * (share * self.count)

    @torch.no_grad()
    def whole(self, result: LossResult, share: float) -> LossResult:
        """The figures of the whole batch, of those of its parts; the total has no gradient. A GPU does not wait."""
        if self.count == 1:
            return result
        names = list(result.regression)
        cells_N = [result.cells[name].float() * (share > 0) for name in names]
        sums = [result.total * share, result.valid_rate * share]
        sums += [result.regression[name] * cells for name, cells in zip(names, cells_N)] + cells_N
        figures_N = torch.stack([value.float() for value in sums])
        dist.all_reduce(figures_N)
        total, valid_rate, *rest = figures_N.unbind()
        of_names = zip(names, rest[: len(names)], rest[len(names) :], strict=True)
        regression = {name: value / cells.clamp(min=1) for name, value, cells in of_names}
        return replace(result, total=total, valid_rate=valid_rate, regression=regression)

    def parallel(self, net: nn.Module) -> nn.Module:
        """The network whose backward pass averages the gradients over all processes."""
        if self.count == 1:
            return net
        return DistributedDataParallel(
            net, device_ids=[self.device] if self.device.type == "cuda" else None, broadcast_buffers=False
        )


def process_number() -> int:
    """Number of this process among those that `torchrun` started, 0 without it."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def processes_of_the_run(device: str) -> Iterator[Ranks]:
    """Joins the processes that `torchrun` started with this one, if it did.

    Args:
        device: as `choose_device`; `auto` and `cuda` are a GPU for each process.
    Raises:
        ValueError: the device cannot be used by this number of processes.
        PeerStopped: another process stopped before this one did.
        ConnectionError: a process was lost without a word.
    """
    count = int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1
    if count == 1:
        yield Ranks(choose_device(device))
        return
    store, number, count = next(dist.rendezvous("env://"))
    try:
        ranks = Ranks(_device_of_process(device), number, count, int(os.environ["LOCAL_WORLD_SIZE"]))
        backend = "cpu:gloo,cuda:nccl" if ranks.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.PrefixStore("run", store), rank=number, world_size=count)
        yield ranks
    except PeerStopped:
        raise
    except Exception as error:
        if store.add(_STOPPED, 1) > 1:
            raise PeerStopped(str(error)) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            # Behind the place in gloo's source, before advice that does not help here.
            reason = str(error).splitlines()[0].rpartition("] ")[2].split(". ")[0]
            raise ConnectionError(
                f"process {number} of {count} lost another one ({reason}); the state is kept: continue with --auto_resume"
            ) from error
        raise
    # After an error the others may be anywhere: the connections end with the process.
    dist.destroy_process_group()


def _device_of_process(name: str) -> torch.device:
    """The device of one of several processes; ValueError when they would have to share a GPU."""
    if name not in ("auto", "cuda", "cpu"):
        raise ValueError(f"--device {name}: several processes take auto, cuda (a GPU each) or cpu")
    chosen = choose_device(name)
    if chosen.type != "cuda":
        return chosen
    local, wanted, there = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if wanted > there:
        raise ValueError(f"{wanted} processes on a machine with {there} visible GPUs: one each, or --device cpu")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
