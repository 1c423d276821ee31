"""Shapes at several sizes, the published facts, and figures that change when a layer does."""

import pytest
import torch
import torch.nn.functional as F

from ddloc.attention import Attention
from ddloc.discriminators import GlobalLocalDiscriminator, PatchDiscriminator
from ddloc.generator import Generator
from ddloc.layers import instance_norm
from ddloc.regressor import UNetRegressor, working_size
from geometry.grid import grid_size

SIZES = [(64, 96), (70, 101), (112, 168)]


def image(size, batch=1):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def shape_on_no_memory(net_class, *arguments):
    with torch.device("meta"):
        return net_class()(*arguments)


@pytest.mark.parametrize("size", SIZES)
def test_maps_are_of_the_image_whatever_its_size(size):
    picture = image(size, 2)
    assert Generator(8)(picture).shape == picture.shape
    assert Attention(8)(picture).shape == (2, 1, *size)
    coords, sigma = UNetRegressor(8)(picture)
    assert coords.shape == (2, 3, *grid_size(*size)) and sigma is None
    assert GlobalLocalDiscriminator(8)(picture, torch.ones(2, 1, *size)).shape == (2, 1)


def test_images_of_a_batch_do_not_see_each_other():
    picture = image((64, 96), 2)
    for net in (Generator(8), Attention(8), PatchDiscriminator(8)):
        assert torch.allclose(net(picture)[1:], net(picture[1:]), atol=1e-5)
    net = UNetRegressor(8)
    assert torch.allclose(net(picture)[0][1:], net(picture[1:])[0], atol=1e-4)


def test_instance_norm_is_torchs_and_bears_a_single_cell():
    x = torch.randn(2, 3, 5, 7)
    assert torch.allclose(instance_norm(x), F.instance_norm(x), atol=1e-5)
    assert torch.equal(instance_norm(torch.randn(2, 3, 1, 1)), torch.zeros(2, 3, 1, 1))
    assert torch.allclose(instance_norm(1000 + x), F.instance_norm(x), atol=1e-3)


def test_published_sizes():
    """Of the description: what a 480 x 720 image meets, in full width."""
    whole = torch.empty(1, 3, 480, 720, device="meta")
    assert working_size(120, 180) == (128, 192)
    with torch.device("meta"):
        net = UNetRegressor()
        maps = net._encoded(whole, (128, 192))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 64, 96), (128, 32, 48), (256, 16, 24), (512, 8, 12)]
    assert net.coarse.in_channels == 131 and net.near.kernel_size == (7, 7) and net.centre[0].join.in_channels == 1536
    assert shape_on_no_memory(PatchDiscriminator, whole).shape == (1, 1, 58, 88)
    with torch.device("meta"):
        judge = GlobalLocalDiscriminator()
    assert judge.global_weight.numel() + judge.local_weight.numel() == 52096
    assert judge(whole, whole[:, :1]).shape == (1, 1)
    # CycleGAN's generator of nine blocks has 11.378 million weights.
    assert parameters(Generator()) == 11_378_179


@pytest.mark.parametrize("height, width", [(28, 42), (16, 24), (120, 180), (90, 90)])
def test_the_working_size_has_four_halvings_and_room_for_the_widest_dilation(height, width):
    work = working_size(height, width)
    assert all(side % 16 == 0 for side in work) and min(work) // 16 >= 6 and work[0] >= height and work[1] >= width


def test_the_linear_unit_is_stretched_to_a_sum_of_the_same_size():
    """Even weights and features: the score is the same at every size."""
    judge = GlobalLocalDiscriminator(8)
    with torch.no_grad():
        judge.global_weight.fill_(0.01)
        judge.local_weight.fill_(0.02)
        for branch in (judge.of_image, judge.of_mask):
            for layer in branch:
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.zero_()
                    layer.bias.fill_(1.0)
    scores = [judge(image(size), torch.ones(1, 1, *size)).item() for size in ((480, 720), (64, 96), (112, 168))]
    expected = 16 * (7 * 11 * 0.01 + 15 * 22 * 0.02)
    assert scores == pytest.approx([expected] * 3, rel=1e-4)
    with pytest.raises(ValueError, match="at least 64 px"):
        judge(image((56, 96)), torch.ones(1, 1, 56, 96))


def test_coordinates_start_at_the_scenes_mean_in_its_units():
    """The last layer's output is near zero at first; its bias moves coordinates by the spread."""
    mean_3 = torch.tensor([100.0, -50.0, 7.0])
    net = UNetRegressor(8, mean_3, 40.0)
    before = net(image((64, 96)))[0]
    assert torch.allclose(before.mean((0, 2, 3)), mean_3, atol=30)
    with torch.no_grad():
        net.leave.bias += 1.0
    assert torch.allclose(net(image((64, 96)))[0] - before, torch.full_like(before, 40.0), atol=1e-3)
    again = UNetRegressor(8)
    again.load_state_dict(net.state_dict())  # mean and spread travel with the weights
    assert torch.equal(again(image((64, 96)))[0], net(image((64, 96)))[0])


def figures(net, *inputs):
    with torch.no_grad():
        out = net(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    return [out.mean().item(), out.std().item()]


def rescaled(net):
    """Weights as far from their initialisation as a trained network's: so that every layer shows in the output."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return net


@pytest.mark.parametrize(
    "net, inputs, expected",
    [
        (Generator, 1, [-0.285003, 0.682323]),
        (Attention, 1, [-0.136005, 0.07057]),
        (PatchDiscriminator, 1, [0.495067, 1.81607]),
        (UNetRegressor, 1, [0.265705, 1.040419]),
        (GlobalLocalDiscriminator, 2, [5.443081, 2.118753]),
    ],
)
def test_first_figures(net, inputs, expected):
    """Recorded: a layer, a skip or a damping that changes shows here."""
    picture = image((64, 96), 2)
    mask = (picture[:, :1] > 0.5).float()
    assert figures(rescaled(net(8)), *(picture, mask)[:inputs]) == pytest.approx(expected, rel=2e-3, abs=2e-5)
