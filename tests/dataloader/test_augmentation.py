"""What chance decides: pure functions of the position in the run, evenly over the declared ranges."""

import argparse
import dataclasses

import pytest
import torch

from dataloader.augmentation import AugmentationOptions, draw_augmentation
from records.options import add_options, options_from

SHADED = AugmentationOptions(shading=0.2)


def draws(options=SHADED, *, seed=1, epoch=2, images_seen=30, indices=(0, 1, 2)):
    return draw_augmentation(options, seed=seed, epoch=epoch, images_seen=images_seen, indices=indices)


def colours(drawn, place):
    return torch.cat((drawn.jitter_B5[place], drawn.shading_B4hw[place].flatten()))


def geometry(drawn):
    return [drawn.scale, drawn.roll, *drawn.tilt_2.tolist(), *drawn.shift_2.tolist()]


def test_colours_of_a_sample_do_not_depend_on_its_batch():
    alone = draws(indices=(7,), images_seen=0)
    among = draws(indices=(3, 7, 1), images_seen=44)
    assert torch.equal(colours(alone, 0), colours(among, 1))
    assert torch.equal(draws(AugmentationOptions(), indices=(7,)).jitter_B5, alone.jitter_B5)  # shading moves nothing else


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 3}, {"indices": (1, 2, 3)}])
def test_colours_differ_by_seed_epoch_and_sample(other):
    one, two = draws(), draws(**other)
    for place in range(3):
        assert (colours(one, place) - colours(two, place)).abs().min() > 0


def test_geometry_is_the_steps_own():
    same = [draws(), draws(indices=(5,)), draws(epoch=9), draws(AugmentationOptions())]
    assert all(geometry(drawn) == geometry(same[0]) for drawn in same)
    for other in (draws(images_seen=31), draws(seed=2)):
        assert all(a != b for a, b in zip(geometry(same[0]), geometry(other), strict=True))


def test_draws_are_even_over_their_ranges():
    drawn = draws(indices=range(2000))
    for values in (drawn.jitter_B5, drawn.shading_B4hw.flatten(1)):
        assert values.min() < -0.99 and values.max() > 0.99
        assert values.mean(0).abs().max() < 0.07 and (values.std(0) - 3**-0.5).abs().max() < 0.04
    correlation = torch.corrcoef(torch.cat((drawn.jitter_B5[:-1], drawn.jitter_B5[1:]), 1).T) - torch.eye(10)
    assert correlation.abs().max() < 0.09
    steps = torch.tensor([geometry(draws(images_seen=4 * n, indices=(0,))) for n in range(2000)])
    assert steps[:, 0].min() >= 0 and steps[:, 0].max() < 1 and abs(steps[:, 0].mean() - 0.5) < 0.03
    assert (steps[:, 1:].min(0).values < -0.99).all() and (steps[:, 1:].max(0).values > 0.99).all()
    assert steps[:, 1:].mean(0).abs().max() < 0.06


def test_draws_stay_on_the_cpu_and_without_shading_there_is_none():
    drawn = draws(AugmentationOptions())
    assert drawn.shading_B4hw is None and drawn.jitter_B5.shape == (3, 5) and draws().shading_B4hw.shape == (3, 4, 4, 6)
    tensors = [value for value in vars(draws()).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 4 and all(tensor.device.type == "cpu" for tensor in tensors)


def test_the_options_are_the_flags():
    parser = argparse.ArgumentParser()
    add_options(parser, AugmentationOptions)
    assert options_from(AugmentationOptions, parser.parse_args([])) == AugmentationOptions()
    words = "--scale_range 0.5 2 --max_angle 10 --max_tilt 3 --max_shift 0.2 --jitter 0.3 --colour_jitter 0.1 --shading 0.4"
    assert options_from(AugmentationOptions, parser.parse_args(words.split())) == AugmentationOptions(
        scale_range=(0.5, 2.0), max_angle=10.0, max_tilt=3.0, max_shift=0.2, jitter=0.3, colour_jitter=0.1, shading=0.4
    )
    defaults = {field.name: field.default for field in dataclasses.fields(AugmentationOptions)}
    assert defaults == {
        "jitter": 0.1,
        "colour_jitter": 0.0,
        "shading": 0.0,
        "max_angle": 30.0,
        "max_tilt": 0.0,
        "max_shift": 0.0,
        "scale_range": (2 / 3, 3 / 2),
    }


@pytest.mark.parametrize(
    "name, bad, most",
    [
        ("jitter", 1.01, 1.0),
        ("colour_jitter", -0.1, 1.0),
        ("shading", 0.7, 0.6),
        ("max_angle", 181.0, 180.0),
        ("max_tilt", 31.0, 30.0),
        ("max_shift", 0.51, 0.5),
        ("scale_range", (2.0, 1.0), (1.0, 2.0)),
        ("scale_range", (0.0, 1.0), (1.0, 1.0)),
    ],
)
def test_ranges_are_checked_by_name(name, bad, most):
    with pytest.raises(ValueError, match=f"--{name} must"):
        AugmentationOptions(**{name: bad})
    assert getattr(AugmentationOptions(**{name: most}), name) == most
