"""Loaded views and samples to batches: normalised and augmented on the training device.

Scale and turns are one resampling. The image plane turns about the camera's centre, so the augmented image is exactly
what the same camera would see after rolling, tilting and zooming: pose, intrinsics, normals and labels move along.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F

from dataloader.augmentation import AugmentationOptions, Draws
from dataloader.batch import Batch, Views, transferred
from dataloader.preprocessing import Preprocessing
from dataloader.resampling import RESAMPLED, CameraChange, LabelMaps, Plane, sample
from dataloader.section import Sample, View, too_coarse
from geometry.grid import STRIDE, grid_size
from geometry.poses import rotation_xy, rotation_z
from tasks import TASKS

R = TypeVar("R", bound="RawViews")
# Every so many pixels count for the mean brightness that contrast changes about.
_MEAN_EVERY_PX = 8


@dataclass(frozen=True)
class RawViews:
    """Stacked views before normalisation; smaller images are padded at the bottom and right.

    Attributes:
        images_BHW3: uint8 RGB.
        K_B33: float64 intrinsics of the images, pixels; always on the CPU, where geometry is planned.
        stems: names of the photos.
        sizes: (height, width) of each image without padding.
        brightness_B: float32 mean of each image in [0, 1]; on the CPU.
    """

    images_BHW3: torch.Tensor
    K_B33: torch.Tensor
    stems: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    brightness_B: torch.Tensor

    @property
    def padded(self) -> bool:
        """Whether an image is smaller than the batch."""
        return any(size != tuple(self.images_BHW3.shape[1:3]) for size in self.sizes)

    def pin_memory(self: R) -> R:
        return self._with_maps(torch.Tensor.pin_memory)

    def to(self: R, device: torch.device | str) -> R:
        """With images and label maps on another device."""
        return self._with_maps(lambda tensor: tensor.to(device, non_blocking=True))

    def _with_maps(self: R, function: Callable[[torch.Tensor], torch.Tensor]) -> R:
        return dataclasses.replace(self, **{name: function(getattr(self, name)) for name in self._MAPS})

    _MAPS = ("images_BHW3",)


@dataclass(frozen=True)
class RawBatch(RawViews):
    """Stacked samples before normalisation; label maps are padded with invalid cells. See `dataloader.section.Label`.

    Attributes:
        maps_BChw, valid_B1hw: labels on the grid of the stored images.
        world_from_cam_B44, K_label_B33: float64 poses, and intrinsics of the stored images; always on the CPU.
        stride: pixels of the stored images per cell.
        indices: of the samples, as drawn.
    """

    maps_BChw: torch.Tensor
    valid_B1hw: torch.Tensor
    world_from_cam_B44: torch.Tensor
    K_label_B33: torch.Tensor
    stride: int
    indices: tuple[int, ...]

    def padded_to(self, H: int, W: int, h: int, w: int) -> RawBatch:
        """With images of at least H x W pixels and labels of at least h x w cells."""
        images_BHW3 = F.pad(self.images_BHW3, (0, 0, 0, W - self.images_BHW3.shape[2], 0, H - self.images_BHW3.shape[1]))
        maps_BChw, valid_B1hw = _padded(self.maps_BChw, h, w), _padded(self.valid_B1hw, h, w)
        return dataclasses.replace(self, images_BHW3=images_BHW3, maps_BChw=maps_BChw, valid_B1hw=valid_B1hw)

    _MAPS = ("images_BHW3", "maps_BChw", "valid_B1hw")


def collate_views(views: Sequence[View]) -> RawViews:
    """Stacks views."""
    return RawViews(**_stacked(views))


def collate(samples: Sequence[Sample]) -> RawBatch:
    """Stacks samples.

    Raises:
        ValueError: labels of full size and of the network's grid in one batch; names one of each.
    """
    labels = [s.label for s in samples]
    by_stride = {label.stride: s.view.stem for label, s in zip(labels, samples)}
    if len(by_stride) > 1:
        found = ", ".join(f"{stem} (one cell per {stride} px)" for stride, stem in by_stride.items())
        raise ValueError(f"labels of different strides cannot share a batch: {found}")
    h, w = (max(label.valid_1hw.shape[i] for label in labels) for i in (1, 2))
    return RawBatch(
        **_stacked([s.view for s in samples]),
        maps_BChw=torch.stack([_padded(label.map_Chw, h, w) for label in labels]),
        valid_B1hw=torch.stack([_padded(label.valid_1hw, h, w) for label in labels]),
        world_from_cam_B44=torch.stack([label.world_from_cam_44 for label in labels]),
        K_label_B33=torch.stack([label.K_33 for label in labels]),
        stride=labels[0].stride,
        indices=tuple(s.index for s in samples),
    )


def _stacked(views: Sequence[View]) -> dict:
    sizes = tuple(view.image_HW3.shape[:2] for view in views)
    images = torch.zeros((len(views), max(h for h, _ in sizes), max(w for _, w in sizes), 3), dtype=torch.uint8)
    for image_HW3, view, (height, width) in zip(images, views, sizes):
        image_HW3[:height, :width] = torch.from_numpy(view.image_HW3)
    means = [view.image_HW3[::_MEAN_EVERY_PX, ::_MEAN_EVERY_PX].mean() / 255.0 for view in views]
    return {
        "images_BHW3": images,
        "K_B33": torch.stack([view.K_33 for view in views]),
        "stems": tuple(view.stem for view in views),
        "sizes": sizes,
        "brightness_B": torch.tensor(means, dtype=torch.float32),
    }


def _padded(tensor_hw: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return F.pad(tensor_hw, (0, w - tensor_hw.shape[-1], 0, h - tensor_hw.shape[-2]))


def prepare_views(raw: RawViews, preprocessing: Preprocessing) -> Views:
    """Normalised photos on the device of `raw`."""
    images_BHW3 = raw.images_BHW3
    images_B3HW = _blank_padding(preprocessing.normalise(images_BHW3.permute(0, 3, 1, 2)), raw)
    return Views(images_B3HW, transferred(raw.K_B33.float(), images_BHW3.device), raw.stems)


def prepare_for_evaluation(raw: RawBatch, preprocessing: Preprocessing, task: str, stride: int = STRIDE) -> Batch:
    """Normalised batch without augmentation; labels resampled only when they are of another size than predictions.

    Args:
        stride: pixels per cell of the network's predictions, 8 or 1; semantics is always predicted at image size.
    Raises:
        ValueError: full-size predictions and labels on the stride-8 grid.
    """
    stride = _checked_stride(raw, task, stride)
    if raw.stride == stride and torch.equal(raw.K_B33, raw.K_label_B33):
        maps, valid = raw.maps_BChw, raw.valid_B1hw
    else:
        upright_33 = torch.eye(3, dtype=torch.float64)
        maps, valid = _resampled_labels(raw, task, raw.K_B33, upright_33, raw.images_BHW3.shape[1:3], stride)
    return _batch(prepare_views(raw, preprocessing), maps, valid, raw.world_from_cam_B44, task, stride)


def prepare_for_training(
    raw: RawBatch, preprocessing: Preprocessing, task: str, options: AugmentationOptions, draws: Draws, stride: int = STRIDE
) -> Batch:
    """Normalised and augmented batch on the device of `raw`, which does not wait for the CPU nor the CPU for it.

    Args:
        draws: of `draw_augmentation` for this step and these samples.
        stride: see `prepare_for_evaluation`.
    Raises:
        ValueError: full-size predictions and labels on the stride-8 grid.
    """
    stride = _checked_stride(raw, task, stride)
    device = raw.images_BHW3.device
    low, high = options.scale_range
    scale = low + (high - low) * draws.scale
    H, W = raw.images_BHW3.shape[1:3]
    size = math.ceil(H * scale), math.ceil(W * scale)
    K_B33 = _zoomed_and_shifted(raw, scale, options.max_shift * draws.shift_2)
    tilt_rad = (math.radians(options.max_tilt) * draws.tilt_2).tolist()
    old_from_new_44 = rotation_xy(*tilt_rad) @ rotation_z(math.radians(options.max_angle) * draws.roll)
    R_33 = old_from_new_44[:3, :3]

    gain_B3, offset_B3 = _photometric(raw.brightness_B, draws.jitter_B5, options)
    # Interpolation is quickest on planar images.
    planar_B3HW = raw.images_BHW3.permute(0, 3, 1, 2).contiguous()
    shading_B3HW = _shading(raw, draws.shading_B4hw, options.shading)
    images_B3HW = preprocessing.normalise(planar_B3HW, gain_B3, offset_B3, shading_B3HW)
    change = CameraChange.between(Plane(raw.K_B33, (H, W)), Plane(K_B33, size), R_33, device)
    # What no image covers is zero, the mean colour.
    images_B3HW = sample(_blank_padding(images_B3HW, raw), change.grid_Ghw2(), "bilinear")

    maps, valid = _resampled_labels(raw, task, K_B33, R_33, size, stride)
    views = Views(images_B3HW, transferred(K_B33.float(), device), raw.stems)
    return _batch(views, maps, valid, raw.world_from_cam_B44 @ old_from_new_44, task, stride)


def _checked_stride(raw: RawBatch, task: str, stride: int) -> int:
    stride = TASKS[task].stride(fullsize=stride == 1)
    if raw.stride > stride:
        raise ValueError(f"the label of {raw.stems[0]} {too_coarse(raw.stride)}")
    return stride


def _batch(
    views: Views, maps_BChw: torch.Tensor, valid_B1hw: torch.Tensor, world_from_cam_B44: torch.Tensor, task: str, stride: int
) -> Batch:
    return Batch(
        **vars(views),
        labels_BChw=maps_BChw[:, 0].long() if TASKS[task].classes else maps_BChw,
        valid_B1hw=valid_B1hw,
        world_from_cam_B44=transferred(world_from_cam_B44.float(), maps_BChw.device),
        stride=stride,
    )


def _resampled_labels(
    raw: RawBatch, task: str, K_B33: torch.Tensor, old_from_new_R_33: torch.Tensor, size: tuple[int, int], stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and mask on the grid of the camera that predictions are for; `size` of its images in pixels."""
    device = raw.maps_BChw.device
    source = Plane(raw.K_label_B33, tuple(raw.maps_BChw.shape[2:]), raw.stride)
    target = Plane(K_B33, grid_size(*size, stride), stride)
    labels = LabelMaps(raw.maps_BChw, raw.valid_B1hw, transferred(raw.world_from_cam_B44.float(), device))
    return RESAMPLED[task](labels, CameraChange.between(source, target, old_from_new_R_33, device))


def _zoomed_and_shifted(raw: RawViews, scale: float, shift_2: torch.Tensor) -> torch.Tensor:
    """Intrinsics [B, 3, 3] after a zoom and a shift by a share of each image's own size."""
    width_height_B2 = torch.tensor(raw.sizes, dtype=torch.float64).flip(1)
    K_B33 = raw.K_B33.clone()
    K_B33[:, :2] *= scale
    K_B33[:, :2, 2] += scale * shift_2 * width_height_B2
    return K_B33


def _photometric(
    brightness_B: torch.Tensor, jitter_B5: torch.Tensor, options: AugmentationOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gain and offset [B, 3] of brightness jitter followed by contrast jitter about the image mean; on the CPU."""
    gain_B3 = 1 + options.jitter * jitter_B5[:, :1] + options.colour_jitter * jitter_B5[:, 2:]
    contrast_B1 = 1 + options.jitter * jitter_B5[:, 1:2]
    return gain_B3 * contrast_B1, (1 - contrast_B1) * brightness_B[:, None] * gain_B3


def _shading(raw: RawViews, shading_B4hw: torch.Tensor | None, amplitude: float) -> torch.Tensor | None:
    """Smooth gain [B, 3, H, W] about one, over each image without its padding: common, and half as much per colour."""
    if shading_B4hw is None:
        return None
    nodes_B3hw = transferred(1 + amplitude * (shading_B4hw[:, :1] + 0.5 * shading_B4hw[:, 1:]), raw.images_BHW3.device)
    H, W = raw.images_BHW3.shape[1:3]
    groups = nodes_B3hw.split(1) if raw.padded else [nodes_B3hw]
    gains = [F.interpolate(nodes, size, mode="bilinear", align_corners=True) for nodes, size in zip(groups, raw.sizes)]
    return torch.cat([F.pad(gain, (0, W - gain.shape[3], 0, H - gain.shape[2])) for gain in gains])


def _blank_padding(images_B3HW: torch.Tensor, raw: RawViews) -> torch.Tensor:
    """Padding in the mean colour, in place, so that an image does not look different for its neighbours in the batch."""
    if raw.padded:
        for image_3HW, (height, width) in zip(images_B3HW, raw.sizes):
            image_3HW[:, height:] = 0
            image_3HW[:, :, width:] = 0
    return images_B3HW
