"""Muon: what a step is, that it is an optimizer like any other, and that its roles come from the network."""

from __future__ import annotations

import copy

import pytest
import torch

from networks import Architecture, build, freeze_encoders, parameter_roles
from training.optimizer import Muon, build_optimizer, orthogonalised

TINY = Architecture(tiny=True)
# Losses of six steps of `train`, recorded from the implementation that took the roles from the parameters' order.
# Sums in another order (threads, instruction sets) move them by up to 6e-4.
RECORDED = [40.71564483642578, 5.018589496612549, 4.331959247589111, 4.14526891708374, 4.024424076080322, 3.9034979343414307]


def network(layout=torch.contiguous_format, architecture=TINY):
    torch.manual_seed(0)
    return build(architecture, torch.tensor([1.0, 2.0, 3.0])).to(memory_format=layout)


def loss_of(net):
    images = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(1))
    target = 10 * torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(2))
    prediction, sigma = net(images)
    return ((prediction - target).square() / (2 * sigma**2) + 3 * sigma.log()).mean()


def train(net, optimizer, steps, start=0):
    losses = []
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        loss = loss_of(net)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def small(layout=torch.contiguous_format):
    """(hidden weights, others) with gradients: convolutions wider and narrower than high, a matrix, a vector."""
    generator = torch.Generator().manual_seed(3)
    parameters = []
    for shape in [(8, 4, 3, 3), (16, 8, 1, 1), (40, 4, 3, 3), (6, 9), (4, 3, 3, 3), (5,)]:
        value = torch.randn(shape, generator=generator)
        parameter = torch.nn.Parameter(value.contiguous(memory_format=layout) if value.dim() == 4 else value)
        parameter.grad = torch.randn(shape, generator=generator)
        parameters.append(parameter)
    return parameters[:4], parameters[4:]


def muon(hidden, others, lr=0.01):
    return Muon([{"params": hidden, "use_muon": True}, {"params": others, "use_muon": False}], lr)


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
    assert orthogonalised([]) == []


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_is_the_textbook_on_matrices_and_adam_elsewhere(layout):
    """Against a few lines in float64: momentum, its orthogonal factor, and steps of the learning rate per entry."""
    hidden, others = small(layout)
    expected = [p.detach().double().clone() for p in hidden]
    momenta = [torch.zeros_like(p) for p in expected]
    adam_parameters = [torch.nn.Parameter(p.detach().double().contiguous()) for p in others]
    adam = torch.optim.Adam(adam_parameters, lr=0.01)
    optimizer = muon(hidden, others)
    for _ in range(3):
        for parameter in [*hidden, *others]:
            parameter.grad.mul_(-0.7).add_(0.1)
        for reference, parameter in zip(adam_parameters, others):
            reference.grad = parameter.grad.double().contiguous()
        for value, momentum, parameter in zip(expected, momenta, hidden):
            gradient = parameter.grad.double()
            momentum.mul_(0.95).add_(0.05 * gradient)
            direction = 0.05 * gradient + 0.95 * momentum
            x = direction.flatten(1) / direction.norm()
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            value -= 0.01 * max(x.shape) ** 0.5 * x.view_as(value)
        adam.step()
        optimizer.step()
        for found, value in zip(hidden, expected, strict=True):
            torch.testing.assert_close(found.detach().double(), value, rtol=0, atol=2e-6)
        for found, value in zip(others, adam_parameters, strict=True):
            torch.testing.assert_close(found.detach().double(), value.detach(), rtol=0, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
def test_a_matrix_moves_as_under_the_muon_of_torch():
    (_, _, _, matrix), _ = small()
    theirs_parameter = torch.nn.Parameter(matrix.detach().clone())
    # Theirs scales steps by 0.2 sqrt(max(rows, columns)), ours by the root alone.
    theirs = torch.optim.Muon([theirs_parameter], lr=0.05, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    ours = muon([matrix], [])
    before = matrix.detach().clone()
    for _ in range(3):
        theirs_parameter.grad = matrix.grad.clone()
        theirs.step()
        ours.step()
        matrix.grad.mul_(-0.8).add_(0.1)
    moved, moved_by_theirs = matrix.detach() - before, theirs_parameter.detach() - before
    assert (moved - moved_by_theirs).norm() < 0.06 * moved.norm()  # they work in bfloat16


def test_the_trajectory_is_the_recorded_one():
    net = network(torch.channels_last)
    assert train(net, build_optimizer("muon", net, 0.01), 6) == pytest.approx(RECORDED, rel=2e-3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_hidden_convolutions_move_by_the_rate_and_the_others_as_under_adam(layout):
    moved = {}
    for name in ("adam", "muon"):
        net = network(layout)
        optimizer = build_optimizer(name, net, 0.01)
        before = {key: value.clone() for key, value in net.named_parameters()}
        loss_of(net).backward()
        optimizer.step()
        moved[name] = {key: value.detach() - before[key] for key, value in net.named_parameters()}
    hidden = {id(parameter) for parameter in parameter_roles(net)["hidden"]}
    for key, parameter in net.named_parameters():
        step = moved["muon"][key]
        if id(parameter) in hidden:
            # Orthonormal rows or columns; less where the gradient has fewer directions than the matrix.
            assert 0.001 < step.square().mean().sqrt() < 0.012, key
            assert not torch.allclose(step, moved["adam"][key], atol=1e-3), key
        else:
            torch.testing.assert_close(step, moved["adam"][key], rtol=1e-5, atol=1e-8)


def test_the_rate_is_set_through_the_parameter_groups():
    net = network()
    optimizer = build_optimizer("muon", net, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.clone() for p in net.parameters()]
    loss_of(net).backward()
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before))
    optimizer.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_a_resumed_optimizer_goes_on_to_the_bit(name, tmp_path):
    net = network(torch.channels_last)
    optimizer = build_optimizer(name, net, 0.01)
    train(net, optimizer, 2)
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state")
    train(net, optimizer, 4, start=2)
    state = torch.load(tmp_path / "state", weights_only=True)
    again = network(torch.channels_last)
    again.load_state_dict(state["net"])
    resumed = build_optimizer(name, again, 123.0)
    resumed.load_state_dict(state["optimizer"])
    train(again, resumed, 4, start=2)
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), net.parameters()))


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_a_state_of_another_memory_layout_goes_on_as_well(name):
    net = network()
    optimizer = build_optimizer(name, net, 0.01)
    train(net, optimizer, 2)
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    resumed = build_optimizer(name, other, 0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter, twin in zip(net.parameters(), other.parameters()):
        twin.grad = parameter.grad.clone()  # contiguous, as an all-reduce may leave it
        if name == "adam":
            twin.grad = torch.empty_like(twin).copy_(twin.grad)
    optimizer.step()
    resumed.step()
    for parameter, twin in zip(net.parameters(), other.parameters()):
        torch.testing.assert_close(twin, parameter, rtol=0, atol=1e-6)


def test_a_scaler_of_gradients_reaches_all_parameters_and_skips_infinite_ones():
    """Power-of-two scales: the scaled training is the plain one to the bit."""
    scaled, plain = network(), network()
    optimizers = [build_optimizer("muon", net, 0.01) for net in (scaled, plain)]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.zero_grad()
        scaler.scale(loss_of(scaled)).backward()
        scaler.unscale_(optimizers[0])
        loss_of(plain).backward()
        for p, q in zip(scaled.parameters(), plain.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)
        scaler.step(optimizers[0])
        scaler.update()
        optimizers[1].step()
    assert all(torch.equal(p, q) for p, q in zip(scaled.parameters(), plain.parameters()))

    optimizers[0].zero_grad()
    scaler.scale(loss_of(scaled)).backward()
    parameter_roles(scaled)["hidden"][0].grad[0, 0] = float("inf")
    scaler.step(optimizers[0])
    scaler.update()
    assert all(torch.equal(p, q) for p, q in zip(scaled.parameters(), plain.parameters()))
    assert scaler.get_scale() == 2.0**9


def test_a_closure_is_evaluated_with_gradients():
    net = network()
    optimizer = build_optimizer("muon", net, 0.01)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(2)]
    assert losses[0] == pytest.approx(RECORDED[0], rel=1e-4) and losses[1] < losses[0] / 2


def test_it_is_an_optimizer_for_schedulers_and_more_groups():
    hidden, others = small()
    optimizer = muon(hidden[:1], others[:1])
    assert isinstance(optimizer, torch.optim.Optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.005]
    optimizer.add_param_group({"params": hidden[1:], "use_muon": True, "lr": 0.02})
    optimizer.add_param_group({"params": others[1:], "use_muon": False, "lr": 0.0})
    before = [p.detach().clone() for p in [*hidden[1:], *others[1:]]]
    optimizer.step()
    for parameter, old in zip(hidden[1:], before):
        # Of the matrix's larger side, orthonormal rows or columns share the norm: sqrt(max) * sqrt(min) * rate.
        assert (parameter - old).norm().item() == pytest.approx(0.02 * old.numel() ** 0.5, rel=0.2)
    assert torch.equal(others[1], before[-1])
    for group, message in (
        ({"params": [others[1]]}, "use_muon"),
        ({"params": [torch.nn.Parameter(torch.zeros(3))], "use_muon": True}, r"\(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 4


def test_frozen_encoders_stay_to_the_bit():
    net = network(torch.channels_last, Architecture(tiny=True, num_encoders=2))
    freeze_encoders(net, [2])
    optimizer = build_optimizer("muon", net, 0.01)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    train(net, optimizer, 2)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == (key.startswith("mlr_encoder_2.") or key.endswith("mean")), key
    assert not any(parameter in optimizer.state for parameter in net.encoders[1].parameters())


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"'sgd'.*'adam', 'muon'"):
        build_optimizer("sgd", network(), 0.01)
