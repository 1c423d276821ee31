"""The channels-last group normalisation agrees with PyTorch's in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks.group_norm import group_norm


def run(x, norm, function, upstream):
    x = x.detach().requires_grad_()
    norm.zero_grad()
    y = function(x, norm)
    y.backward(upstream.to(y.dtype))
    return y.detach(), x.grad, norm.weight.grad.clone(), norm.bias.grad.clone()


def plain(relu):
    return lambda x, norm: F.relu(norm(x)) if relu else norm(x)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("channels", [32, 128])
def test_value_and_gradient_equal_the_plain_modules(relu, channels):
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 + 2 * torch.randn(2, channels, 9, 14)).contiguous(memory_format=torch.channels_last)
    upstream = torch.randn(2, channels, 9, 14)  # contiguous on purpose: the layouts need not agree
    ours = run(x, norm, lambda x, n: group_norm(x, n, relu=relu), upstream)
    reference = run(x.contiguous(), norm, plain(relu), upstream)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert ours[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("relu", [True, False])
def test_contiguous_tensors_go_through_the_plain_modules(relu):
    torch.manual_seed(0)
    norm, x = nn.GroupNorm(32, 64), torch.randn(2, 64, 5, 7)
    assert torch.equal(group_norm(x, norm, relu=relu), plain(relu)(x, norm))


def test_bfloat16_gradient_is_as_close_to_the_truth_as_the_plain_one():
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, 64)
    x = (1 + torch.randn(2, 64, 40, 60)).bfloat16()
    upstream = torch.randn(2, 64, 40, 60)
    truth = run(x.float(), norm, plain(True), upstream)
    theirs = run(x, norm, plain(True), upstream)
    ours = run(x.contiguous(memory_format=torch.channels_last), norm, group_norm, upstream)
    for o, p, t in zip(ours, theirs, truth, strict=True):
        error, error_plain = (o.float() - t).norm() / t.norm(), (p.float() - t).norm() / t.norm()
        assert error < max(1.5 * error_plain, 0.01)


@pytest.mark.parametrize("size", [(9, 14), (40, 60)])  # small maps take another kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [True, False])
def test_inference_gives_the_bits_of_training(size, dtype, relu):
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, 64)
    x = (1 + torch.randn(2, 64, *size)).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        inference = group_norm(x, norm, relu=relu)
    assert torch.equal(inference, group_norm(x, norm, relu=relu)) and inference.dtype == dtype
    torch.testing.assert_close(
        inference.float(), plain(relu)(x.float(), norm), rtol=1e-2, atol=1e-2 if dtype == torch.bfloat16 else 1e-5
    )
