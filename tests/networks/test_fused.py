"""The fused network: parts from single-task networks, frozen encoders, roles of parameters. Its numbers: test_golden.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import (
    Architecture,
    FusedTransPoseNet,
    TransPoseNet,
    build,
    freeze_encoders,
    head_scale_of,
    init_decoder_from,
    init_head,
    load_encoder,
    parameter_roles,
    published_state_dict,
)

FUSED = Architecture(tiny=True, num_encoders=3)
MEAN = torch.tensor([10.0, 20.0, 30.0])


def trained(task="coord", scale=4.0, **fields):
    """Published weights of a single-task network, all its biases and norms off their initial values."""
    architecture = Architecture.for_task(task, **{"tiny": True} | fields)
    net = build(architecture, torch.arange(1.0, architecture.task_channels + 1))
    generator = torch.Generator().manual_seed(len(task))
    for parameter in net.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    init_head(net, scale)
    return net


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        net = build(Architecture(num_encoders=3))
    freeze_encoders(net, [2, 3])
    assert isinstance(net, FusedTransPoseNet)
    assert sum(p.numel() for p in net.parameters()) == 68_423_684
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 37_331_972


def test_one_architecture_one_class():
    assert type(build(FUSED)) is FusedTransPoseNet and type(build(Architecture(tiny=True))) is TransPoseNet
    with pytest.raises(ValueError, match="fused network of 3"):
        TransPoseNet(FUSED)
    with pytest.raises(ValueError, match="at least one encoder"):
        FusedTransPoseNet(Architecture(tiny=True))


def test_the_decoder_comes_from_the_coord_network_with_its_mean_and_scale():
    coord = trained()
    net = build(FUSED)
    init_head(net, 11.0)
    others = {key: value.clone() for key, value in net.state_dict().items() if not key.startswith("decoder.")}
    init_decoder_from(net, published_state_dict(coord))
    assert head_scale_of(net) == 11.0
    features = torch.rand(1, 128, 4, 5)
    for found, expected in zip(net.decoder(features, (32, 40)), coord.decoder(features, (32, 40)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(net.mean, coord.mean)
    assert all(torch.equal(value, others[key]) for key, value in net.state_dict().items() if key in others and key != "mean")


def test_encoders_come_from_networks_of_any_task():
    net = build(FUSED)
    sources = [trained("coord"), trained("depth"), trained("semantics", uncertainty="none", fullsize=True)]
    for index, source in enumerate(sources, 1):
        load_encoder(net, index, published_state_dict(source))
    images = torch.rand(1, 3, 24, 40)
    expected = net.merge([source.encoder(images) for source in sources])
    torch.testing.assert_close(net.features(images), expected)
    assert not torch.allclose(net.merge([sources[0].encoder(images)] * 3), expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"task": "depth"}, "task='depth' instead of 'coord'"),
        ({"uncertainty": "none"}, "uncertainty='none' instead of 'mle'"),
        ({"fullsize": True}, "fullsize=True instead of False"),
        ({"in_channels": 1}, "in_channels=1 instead of 3"),
        ({"tiny": False}, "tiny=False instead of True"),
        ({"num_encoders": 2}, "fused network of 2 encoders; expected a single-task one"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused(weights, message):
    net = build(FUSED)
    with pytest.raises(ValueError, match=message):
        init_decoder_from(net, published_state_dict(trained(**weights)))


def test_an_encoder_that_does_not_fit_is_refused():
    net, good = build(FUSED), published_state_dict(trained("normal"))
    for index in (0, 4):
        with pytest.raises(ValueError, match=f"encoders 1 to 3, not {index}"):
            load_encoder(net, index, good)
    with pytest.raises(ValueError, match=r"encoder 2 does not fit: .*tiny=False instead of True"):
        load_encoder(net, 2, published_state_dict(trained("normal", tiny=False)))
    with pytest.raises(ValueError, match="in_channels=1 instead of 3"):
        load_encoder(net, 2, published_state_dict(trained("normal", in_channels=1)))
    with pytest.raises(ValueError, match="fused network of 3"):
        load_encoder(net, 2, net.state_dict())
    del good["decoder.fc2.bias"]
    with pytest.raises(ValueError, match=r"missing \(decoder\.fc2\.bias\)"):
        load_encoder(net, 2, good)


def saved_bytes(function) -> int:
    """Memory that autograd keeps for the backward pass of what `function` returns, without the parameters."""
    storages = {}

    def pack(tensor):
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    assert result.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def graph_size(result) -> int:
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return len(seen)


def test_frozen_encoders_cost_no_gradient_memory_and_no_backward_pass():
    net = build(FUSED).to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 40, 56).contiguous(memory_format=torch.channels_last)
    unfrozen = saved_bytes(lambda: net(images)[0])
    freeze_encoders(net, [1, 2, 3])
    features = [encoder(images).detach() for encoder in net.encoders]
    assert (
        saved_bytes(lambda: net(images)[0])
        == saved_bytes(lambda: net.decoder(net.merge(features), (40, 56))[0])
        < unfrozen / 2
    )
    assert graph_size(net(images)[0]) == graph_size(net.decoder(net.merge(features), (40, 56))[0])

    freeze_encoders(net, [2, 3])
    one = saved_bytes(lambda: net(images)[0])
    assert one - saved_bytes(lambda: net.encoders[0](images)) <= saved_bytes(
        lambda: net.decoder(net.merge(features), (40, 56))[0]
    )
    net(images)[0].sum().backward()
    for index, encoder in enumerate(net.encoders, 1):
        assert all((p.grad is None) == (index > 1) for p in encoder.parameters())


def test_freezing_changes_no_prediction_and_can_be_taken_back():
    torch.manual_seed(0)
    net = build(FUSED)
    images = torch.rand(1, 3, 24, 40)
    before = net(images)[0]
    freeze_encoders(net, [1, 3])
    assert torch.equal(net(images)[0], before)
    freeze_encoders(net, [])
    assert all(p.requires_grad for p in net.parameters())
    net(images)[0].sum().backward()
    assert all(p.grad is not None for encoder in net.encoders for p in encoder.parameters())
    with pytest.raises(ValueError, match="not 4"):
        freeze_encoders(net, [4])


def test_images_that_take_gradients_get_them_through_frozen_encoders():
    net = build(FUSED)
    freeze_encoders(net, [1, 2, 3])
    images = torch.rand(1, 3, 24, 40, requires_grad=True)
    net(images)[0].square().sum().backward()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(
    "architecture", [Architecture(tiny=True), FUSED, Architecture.for_task("semantics", uncertainty="none", fullsize=True)]
)
def test_roles_follow_from_the_modules(architecture):
    with torch.device("meta"):
        net = build(architecture)
    names = {parameter: name for name, parameter in net.named_parameters()}
    roles = {role: [names[parameter] for parameter in parameters] for role, parameters in parameter_roles(net).items()}
    assert sorted(roles["hidden"] + roles["rest"]) == sorted(names.values())
    count = architecture.num_encoders
    outer = [f"mlr_encoder_{index}.conv1.weight" for index in range(1, count + 1)] or ["encoder.conv1.weight"]
    outer.append("decoder.fc3.weight")
    convolutions = [name for name, parameter in net.named_parameters() if parameter.dim() == 4]
    assert set(outer) < set(convolutions)
    assert roles["hidden"] == [name for name in convolutions if name not in outer]
