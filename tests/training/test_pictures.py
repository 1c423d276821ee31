"""Pictures of training steps: the right colours in the right panels, and no trace in the training."""

import cv2
import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.log
from dataloader.batch import Batch
from dataloader.preprocessing import Preprocessing
from networks import load_state_dict
from tests.training.small_runs import SMALL, options
from training.loop import train
from training.pictures import picture_grid

COLOURS = Preprocessing(32, False, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
H, W, GAP = 64, 96, 2


def batch_of(labels, count=2, valid=None, channels=3):
    h, w = labels.shape[-2:]
    valid = torch.ones(count, 1, h, w, dtype=torch.bool) if valid is None else valid
    images = torch.zeros(count, channels, H, W)
    images[0] = 1.0  # 0.75 of white
    K = torch.eye(3).expand(count, 3, 3)
    return Batch(images, K, ("s/a", "s/b"), labels, valid, torch.eye(4).expand(count, 4, 4), H // h)


def panel(grid, row, column):
    """Below the words, uint8 [3, h, w]."""
    top, left = GAP + row * (H + GAP), GAP + column * (W + GAP)
    return grid[:, top + 20 : top + H, left : left + W]


def viridis(share):
    step = np.array([[round(255 * share)]], np.uint8)
    return torch.from_numpy(cv2.applyColorMap(step, cv2.COLORMAP_VIRIDIS)[0, 0, ::-1].copy())


def only_colour(region):
    colours = region.flatten(1).unique(dim=1)
    assert colours.shape[1] == 1, colours
    return colours[:, 0]


def test_depth_panels():
    labels = torch.full((2, 1, 8, 12), 10.0)
    labels[1] = 30.0
    prediction = labels.clone()
    prediction[1] = 20.0  # half of the range, an error of 10
    sigma = torch.full((2, 1, 8, 12), 5.0)
    valid = torch.ones(2, 1, 8, 12, dtype=torch.bool)
    valid[0, :, 4:] = False
    grid = picture_grid("depth", batch_of(labels, valid=valid), COLOURS, prediction, sigma)
    assert grid.dtype == torch.uint8 and grid.shape == (3, 2 * (H + GAP) + GAP, 5 * (W + GAP) + GAP)
    assert only_colour(panel(grid, 0, 0)).tolist() == [191] * 3 and only_colour(panel(grid, 1, 0)).tolist() == [128] * 3
    assert only_colour(panel(grid, 0, 1)[:, -H // 2 + 1 :]).tolist() == [64] * 3  # no label
    assert torch.equal(only_colour(panel(grid, 1, 1)), viridis(1))
    assert torch.equal(only_colour(panel(grid, 0, 2)), viridis(0)) and torch.equal(
        only_colour(panel(grid, 1, 2)), viridis(0.5)
    )
    assert torch.equal(only_colour(panel(grid, 1, 3)), viridis(1)) and torch.equal(panel(grid, 0, 3)[:, 0, 0], viridis(0))
    assert torch.equal(only_colour(panel(grid, 0, 4)), viridis(0.5))  # on the error's scale


def test_coord_normal_and_semantics_panels():
    labels = torch.zeros(2, 3, 8, 12)
    labels[1] = torch.tensor([10.0, 20.0, 40.0])[:, None, None]
    prediction = labels.clone()
    prediction[0, 0] = 5.0
    grid = picture_grid("coord", batch_of(labels), COLOURS, prediction.bfloat16(), None)
    assert grid.shape[2] == 4 * (W + GAP) + GAP
    assert only_colour(panel(grid, 0, 1)).tolist() == [0, 0, 0] and only_colour(panel(grid, 1, 1)).tolist() == [255] * 3
    assert only_colour(panel(grid, 0, 2)).tolist() == [128, 0, 0]
    assert torch.equal(only_colour(panel(grid, 0, 3)), viridis(1)) and torch.equal(
        only_colour(panel(grid, 1, 3)), viridis(0)
    )

    up = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(2, 3, 8, 12)
    logits = torch.zeros(2, 2, 8, 12)  # both angles 0: along x, a right angle away
    grid = picture_grid("normal", batch_of(up), COLOURS, logits, torch.ones(2, 1, 8, 12))
    assert only_colour(panel(grid, 0, 1)).tolist() == [128, 128, 255]
    assert only_colour(panel(grid, 0, 2)).tolist() == [255, 128, 128]
    assert torch.equal(only_colour(panel(grid, 0, 3)), viridis(1)) and torch.equal(
        only_colour(panel(grid, 0, 4)), viridis(1)
    )

    classes = torch.zeros(2, H, W, dtype=torch.int64)
    classes[1] = 3
    logits = torch.zeros(2, 6, H, W)
    logits[:, 3] = 1.0
    grid = picture_grid(
        "semantics", batch_of(classes, valid=torch.ones(2, 1, H, W, dtype=torch.bool)), COLOURS, logits, None
    )
    assert only_colour(panel(grid, 0, 1)).tolist() == [31, 119, 180]
    assert only_colour(panel(grid, 0, 2)).tolist() == only_colour(panel(grid, 1, 1)).tolist() == [214, 39, 40]
    assert torch.equal(only_colour(panel(grid, 0, 3)), viridis(1)) and torch.equal(
        only_colour(panel(grid, 1, 3)), viridis(0)
    )


def test_what_is_not_finite_or_has_no_label_is_drawn_too():
    labels = torch.full((2, 1, 8, 12), 10.0)
    none = torch.zeros(2, 1, 8, 12, dtype=torch.bool)
    prediction = torch.full((2, 1, 8, 12), float("nan"))
    grid = picture_grid("depth", batch_of(labels, valid=none), COLOURS, prediction, prediction)
    assert only_colour(panel(grid, 1, 3)).tolist() == [64] * 3
    grey = Preprocessing(32, True, (0.5,), (0.25,))
    grid = picture_grid("depth", batch_of(labels, channels=1), grey, labels, None)
    assert only_colour(panel(grid, 0, 0)).tolist() == [191] * 3


def test_a_training_is_pictured_and_does_not_notice(tmp_path, plane_section, monkeypatch):
    plane_section(4)
    arguments = [*SMALL, "--epochs", 3]
    monkeypatch.setattr(training.log, "_PICTURE_EVERY_SECONDS", 0.0)
    drawn = train(options(tmp_path, *arguments, "--session", "drawn"))
    monkeypatch.setattr(training.log.TrainingLog, "wants_picture", lambda self, epoch: False)
    plain = train(options(tmp_path, *arguments, "--session", "plain"))
    first, second = (load_state_dict(run.latest) for run in (drawn, plain))
    assert all(torch.equal(first[name], second[name]) for name in first)
    board = EventAccumulator(str(drawn.output / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    events = board.Images("images")
    assert [event.step for event in events] == [2, 6, 10]  # the first step of each epoch
    picture = cv2.imdecode(np.frombuffer(events[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] > 60 and picture.std() > 10
