"""A scene of a few small views, and the six stages trained once on a miniature of the demo."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch

from datagen.demo.build import build_demo
from datagen.demo.settings import DemoSettings, FlightSettings, WorldSettings
from ddloc.loop import train_stage
from ddloc.options import StageOptions
from ddloc.translated import generate
from records import options as declared
from tests.conftest import write_plane_section

STAGES = ("C", "T", "A", "I", "joint", "finetune")
# 64 px is the least that the inpainter's discriminator takes.
SMALL = ("--image_height", 64, "--width", 8, "--batch_size", 2, "--total_epoch_num", 2, "--save_steps", 1,
         "--device", "cpu", "--precision", "float32")  # fmt: skip
# Three training photos, one validation photo.
DEMO = DemoSettings(
    seed=3, num_images=4, num_photos=8, width=96, height=64, focal_px=64.0,
    world=WorldSettings(texel_m=1.35, surface_factor=1),
    flight=FlightSettings(headings_deg=(90.0, 270.0), pitches_deg=(-80.0, -58.0), span=0.42),
)  # fmt: skip
OF_STAGE = {
    "C": ("--data_augment",),
    "T": ("--isbuffer", "--paired_share", 0.5),
    "A": ("--paired_share", 0.5),
    "finetune": ("--data_augment",),
}


def stage_options(root: Path, stage: str, *arguments) -> StageOptions:
    """Options as the command parses them."""
    parser = ArgumentParser()
    declared.add_options(parser, StageOptions)
    words = [stage, "scene", "--datasets_dir", root, "--exp_dir", root / "out", *arguments]
    return declared.options_from(StageOptions, parser.parse_args(list(map(str, words)))).completed()


def small_options(root: Path, stage: str, *arguments) -> StageOptions:
    return stage_options(root, stage, *SMALL, *OF_STAGE.get(stage, ()), *arguments)


def write_scene(root: Path, photos: int = 3) -> Path:
    """Photos and their renders are views of the same places, as in a prepared data set."""
    for name, count, seed in (
        ("train_drone_real", photos, 1),
        ("train_drone_sim", photos, 1),
        ("train_sim", 3, 7),
        ("val_drone_real", 2, 2),
        ("val_drone_sim", 2, 2),
    ):
        write_plane_section(root / "scene" / name, count, seed=seed)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Folder of the data sets; its out/ddloc-scene holds all six stages. Not to be changed."""
    root = tmp_path_factory.mktemp("ddloc")
    build_demo(DEMO, root, workers=1).rename(root / "scene")
    for stage in STAGES:
        options = small_options(root, stage)
        if stage == "finetune":
            generate(options.project_dir, root / "scene" / "train_drone_real", torch.device("cpu"))
        train_stage(options)
    return root
