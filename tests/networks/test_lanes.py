"""Parts of a batch side by side: the same numbers as in one piece, and the same bits on any number of lanes."""

import threading

import pytest
import torch

from networks import Architecture, TransPoseNet
from networks.lanes import Lanes


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny_network(uncertainty="mle"):
    torch.manual_seed(0)
    return TransPoseNet(Architecture.for_task("coord", uncertainty=uncertainty, tiny=True, fullsize=False, in_channels=3))


def step(net, images, *, parts, lanes, bf16=False):
    """Outputs and gradients of a loss that ties all images together."""
    net.zero_grad()
    work = Lanes(net, parts=parts, lanes=lanes)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        prediction, sigma = work(images)
    loss = prediction.square().mean().sqrt()
    if sigma is not None:
        loss = loss + (prediction.detach().square().sum(1, keepdim=True) / sigma).mean()
    loss.backward()
    work.backward()
    work.close()
    return prediction.detach(), sigma, {name: p.grad.clone() for name, p in net.named_parameters()}


@pytest.mark.parametrize("uncertainty", ["mle", "none"])
def test_parts_give_the_outputs_and_gradients_of_the_whole(uncertainty):
    net, images = tiny_network(uncertainty), torch.randn(5, 3, 32, 48)
    whole_prediction, whole_sigma, whole = step(net, images, parts=1, lanes=1)
    prediction, sigma, gradients = step(net, images, parts=3, lanes=2)
    torch.testing.assert_close(prediction, whole_prediction)
    assert (sigma is None) == (uncertainty == "none")
    if sigma is not None:
        torch.testing.assert_close(sigma, whole_sigma)
    assert max(g.abs().max() for g in whole.values()) > 1e-3
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_number_of_lanes_does_not_change_a_bit(bf16):
    net, images = tiny_network(), torch.randn(6, 3, 32, 48)
    _, _, one = step(net, images, parts=3, lanes=1, bf16=bf16)
    _, _, three = step(net, images, parts=3, lanes=3, bf16=bf16)
    assert all(torch.equal(one[name], three[name]) for name in one)


class Watch(torch.nn.Module):
    """Notes how it was called; every part waits until `together` of them are there."""

    def __init__(self, together):
        super().__init__()
        self.weight, self.unused = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
        self.barrier, self.seen = threading.Barrier(together, timeout=20), []

    def forward(self, images):
        self.barrier.wait()
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        self.seen.append((threading.current_thread().name, len(images), torch.get_num_threads(), *modes))
        return images * self.weight, None


def test_parts_run_at_once_on_one_thread_each_in_the_callers_modes():
    net = Watch(together=3)
    lanes = Lanes(net, parts=3, lanes=3)
    images = torch.arange(7.0).reshape(7, 1, 1, 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        prediction, _ = lanes(images)
    assert prediction.flatten().tolist() == list(range(7))
    assert len({name for name, *_ in net.seen}) == 3 and sorted(count for _, count, *_ in net.seen) == [2, 2, 3]
    assert all(rest == [1, False, True, True] for _, _, *rest in net.seen)
    net.seen.clear()
    lanes(images)
    assert all(rest == [1, True, False, False] for _, _, *rest in net.seen)


def test_gradients_add_up_and_unused_parameters_have_none():
    net = Watch(together=2)
    net.weight.grad = torch.full((1,), 10.0)
    lanes = Lanes(net, parts=4, lanes=2)  # more parts than images
    prediction, _ = lanes(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))
    prediction.sum().backward()
    lanes.backward()
    assert net.weight.grad.item() == 13 and net.unused.grad is None
    with pytest.raises(RuntimeError, match="without a forward"):
        lanes.backward()


def test_an_error_inside_a_part_reaches_the_caller():
    with pytest.raises(ValueError, match="3 channels"):
        Lanes(tiny_network(), parts=2, lanes=2)(torch.zeros(2, 1, 16, 16))


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_less_than_one_is_refused(numbers):
    with pytest.raises(ValueError, match="at least 1"):
        Lanes(tiny_network(), parts=numbers[0], lanes=numbers[1])
