"""Muon: what a step looks like, and that it trains."""

import pytest
import torch
from torch import nn

from training.optimizer import MuonWithAdam, build_optimizer, orthogonalised


def test_singular_values_become_one_and_singular_vectors_stay():
    generator = torch.Generator().manual_seed(1)
    decompositions, matrices = [], []
    for shape in [(32, 288), (288, 32), (48, 64), (32, 32)]:
        u, s, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
        decompositions.append((u, v))
        matrices.append(u * torch.linspace(1, 0.05, len(s)) @ v)
    for (u, v), matrix, result in zip(decompositions, matrices, orthogonalised(matrices), strict=True):
        assert result.shape == matrix.shape
        inner = u.T @ result @ v.T
        assert (inner.diagonal() > 0.6).all() and (inner.diagonal() < 1.3).all()
        assert (inner - inner.diagonal().diag()).abs().max() < 2e-3


def test_orthogonalised_of_zero_is_zero():
    assert not orthogonalised([torch.zeros(4, 6)])[0].any()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_hidden_convolutions_move_by_the_rate_and_the_others_as_under_adam(layout):
    moved = {}
    for name in ("adam", "muon"):
        net = network().to(memory_format=layout)
        optimizer = build_optimizer(name, net, 0.01)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        generator = torch.Generator().manual_seed(2)
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        moved[name] = {key: value - before[key] for key, value in net.state_dict().items()}
    hidden = moved["muon"].pop("2.weight")
    assert 0.007 < hidden.square().mean().sqrt() < 0.012
    # Orthonormal rows, up to the spread that five iterations leave.
    spectrum = torch.linalg.svdvals(hidden.permute(0, 2, 3, 1).flatten(1))
    assert spectrum.max() < 2 * spectrum.min()
    for key, value in moved["muon"].items():
        torch.testing.assert_close(value, moved["adam"][key])


def test_the_rate_is_set_through_the_parameter_groups():
    net = network()
    optimizer = build_optimizer("muon", net, 0.01)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.clone() for p in net.parameters()]
    net(torch.rand(1, 3, 12, 12)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before))
    optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in net.parameters())


def test_frozen_layers_stay():
    net = network()
    net[2].requires_grad_(False)
    optimizer = MuonWithAdam(net, 0.01)
    before = net[2].weight.clone()
    net(torch.rand(1, 3, 12, 12)).square().mean().backward()
    optimizer.step()
    assert torch.equal(net[2].weight, before)


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="sgd"):
        build_optimizer("sgd", network(), 0.01)
