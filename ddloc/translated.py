"""Translated photos as a section of their own, which knows what it was made from."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.utils import make_grid
from tqdm import tqdm

from dataloader.images import decode_image, resize_image
from dataloader.prepare import collate, prepare_views
from dataloader.section import SectionDataset
from ddloc.chain import Translated, Translation, load_translation, unnormalised
from ddloc.weights import best_path, record_in_stage
from records import fingerprint
from records.files import read_json, replacing, write_json
from runs.device import autocast_for

logger = logging.getLogger(__name__)

_PROVENANCE = "translated.json"
_COPIED = ("poses", "calibration", "init")
_NETWORKS = (("T", "T"), ("joint", "A"), ("I", "I"))


def translated_dir(project_dir: Path, section: Path) -> Path:
    """Where the translated photos of a section lie."""
    return project_dir / "translated" / section.name


def _made_from(project_dir: Path, section: Path) -> dict[str, Any]:
    """Fingerprints of what the translated photos follow from."""
    weights = {f"{stage}/{net}": best_path(project_dir / stage, net) for stage, net in _NETWORKS}
    record = record_in_stage(project_dir, "joint")
    return {
        "section": fingerprint.of_folder(section, ("rgb", *_COPIED)),
        "weights": {name: fingerprint.of_file(path) for name, path in weights.items()},
        "image_height": record.preprocessing.image_height,
    }


def is_current(project_dir: Path, section: Path) -> bool:
    """Whether the translated photos are there and were made from what is there now."""
    path = translated_dir(project_dir, section) / _PROVENANCE
    return path.is_file() and read_json(path, "record of translated photos") == _made_from(project_dir, section)


def check_translated(project_dir: Path, section: Path) -> None:
    """Raises FileNotFoundError or ValueError when the translated photos of a section cannot be, are absent, or stale."""
    folder = translated_dir(project_dir, section)
    record_in_stage(project_dir, "joint")
    if not (folder / _PROVENANCE).is_file():
        raise FileNotFoundError(f"no translated photos in {folder}: run generate_translated.py first")
    if not is_current(project_dir, section):
        raise ValueError(f"{folder} was made from other photos or weights: run generate_translated.py again")


def generate(project_dir: Path, section: Path, device: torch.device) -> Path:
    """Translates the photos of a section, by hard masks, and puts poses, calibrations and labels beside them.

    Photos keep their names and their stored size; values are clamped to [0, 1] before they become bytes. Nothing is done
    when the same is there already; a folder appears complete or not at all.

    Returns:
        the translated section.
    Raises:
        FileNotFoundError, ValueError, OSError: a stage is not finished, a photo or label is bad, or the folder cannot be
            written.
    """
    target = translated_dir(project_dir, section)
    made_from = _made_from(project_dir, section)
    if is_current(project_dir, section):
        logger.info("%s: translated already", target)
        return target
    record = record_in_stage(project_dir, "joint")
    dataset = SectionDataset([section], "coord", made_from["image_height"])
    translation = load_translation(project_dir, device)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        (unfinished / "rgb").mkdir(parents=True)
        for index in tqdm(range(len(dataset)), desc=f"translate {section.name}", unit="img", dynamic_ncols=True):
            result = translated_photo(translation, dataset, index, device, record.options["precision"])
            stored = dataset.files[index].image
            H, W = decode_image(stored).shape[:2]
            image_HW3 = resize_image(_bytes(result.composed_B3HW[0]), H, W)
            with replacing(unfinished / "rgb" / f"{stored.stem}.png") as temporary:
                Image.fromarray(image_HW3).save(temporary)
        for name in _COPIED:
            shutil.copytree(section / name, unfinished / name)
        write_json(unfinished / _PROVENANCE, made_from)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


@torch.no_grad()
def translated_photo(
    translation: Translation, dataset: SectionDataset, index: int, device: torch.device, precision: str
) -> Translated:
    """What becomes of one photo, a batch of one."""
    views = prepare_views(collate([dataset[index]]).to(device), unnormalised(dataset.image_height))
    with autocast_for(device, precision):
        return translation(views.images_B3HW)


def draw_photos(project_dir: Path, section: Path, device: torch.device, picture: Path, count: int = 4) -> None:
    """A picture of some photos of a section, one a row: real, mask, translated, composed with what was painted.

    Raises:
        OSError, ValueError: the picture cannot be written, or its ending names no format.
    """
    record = record_in_stage(project_dir, "joint")
    dataset = SectionDataset([section], "coord", record.preprocessing.image_height)
    translation = load_translation(project_dir, device)
    panels = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)):
        result = translated_photo(translation, dataset, int(index), device, record.options["precision"])
        photo_3HW = torch.from_numpy(dataset[int(index)].image_HW3).permute(2, 0, 1) / 255
        mask_3HW = result.mask_B1HW[0].expand(3, -1, -1).cpu()
        panels += [photo_3HW, mask_3HW, result.styled_B3HW[0].cpu(), result.composed_B3HW[0].cpu()]
    grid_3HW = make_grid(panels, nrow=4, padding=2, pad_value=1.0)
    with replacing(picture) as temporary:
        Image.fromarray(_bytes(grid_3HW)).save(temporary, quality=90)


def _bytes(image_3HW: torch.Tensor) -> np.ndarray:
    """Of an image in [0, 1]; what lies outside is clamped, not wrapped around."""
    return (image_3HW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
