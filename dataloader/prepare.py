"""Samples to batches: normalisation and augmentation on the batch, on the training device.

Scale and rotation are one affine resampling. The image plane turns about the principal point, so the augmented image is
exactly what the same camera would see after rolling about its optical axis and zooming: pose, intrinsics, normals and
labels move along. Depth along the optical axis does not change under roll and zoom, therefore coordinate labels are
made by sending the rays through the new cell centres to the resampled depth; they reproject onto the cell centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dataloader.batch import Batch
from dataloader.preprocessing import Preprocessing
from dataloader.section import Sample
from geometry.cameras import pixel_rays
from geometry.grid import STRIDE, cell_centres, grid_size
from geometry.poses import invert_pose, rotation_xy, rotation_z, transform_points
from tasks import TASKS

# Neighbouring cells whose inverse depths differ by more than this ratio belong to different surfaces.
_MAX_INVERSE_DEPTH_RATIO = 1.1
# Rows and columns of the grid on which the shading augmentation draws.
_SHADING_NODES = (4, 6)


@dataclass(frozen=True)
class AugmentationOptions:
    """Ranges of the training augmentation.

    Attributes:
        scale: log-free uniform range of the zoom, one value per batch.
        angle_deg: roll about the optical axis, uniform in +-angle_deg, one value per batch.
        tilt_deg: turn of the optical axis, uniform in +-tilt_deg about both image axes, one value per batch.
        brightness, contrast: multiplicative jitter, per image.
        colour: additional gain per colour channel, per image.
        shading: smooth gain over the image, uniform in +-shading at the nodes of a coarse grid and half of that more per
            colour channel, per image: light, vignetting and mosaicked orthophotos differ so from photo to photo.
        shift: the principal point moves by up to this share of the image size, per batch: other parts of a photo come
            to lie in the middle, as if the sensor had been displaced.
    """

    scale: tuple[float, float] = (2 / 3, 3 / 2)
    angle_deg: float = 30.0
    brightness: float = 0.1
    contrast: float = 0.1
    colour: float = 0.0
    shift: float = 0.0
    tilt_deg: float = 0.0
    shading: float = 0.0


@dataclass(frozen=True)
class RawBatch:
    """Stacked samples before normalisation; see `Sample`."""

    images_BHW3: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor
    world_from_cam_B44: torch.Tensor
    K_image_B33: torch.Tensor
    K_label_B33: torch.Tensor
    stems: tuple[str, ...]

    def pin_memory(self) -> "RawBatch":
        return self._map(torch.Tensor.pin_memory)

    def to(self, device: torch.device | str) -> "RawBatch":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function) -> "RawBatch":
        return RawBatch(*[function(v) if isinstance(v, torch.Tensor) else v for v in vars(self).values()])


def collate(samples: list[Sample]) -> RawBatch:
    """Stacks samples; images and labels of different sizes are padded at the bottom and right (labels: invalid)."""
    H, W = (max(s.image_HW3.shape[i] for s in samples) for i in (0, 1))
    h, w = (max(s.label.shape[i] for s in samples) for i in (1, 2))

    def padded(tensor: torch.Tensor) -> torch.Tensor:
        return F.pad(tensor, (0, w - tensor.shape[2], 0, h - tensor.shape[1]))

    images = torch.zeros((len(samples), H, W, 3), dtype=torch.uint8)
    for image_HW3, sample in zip(images, samples):
        image_HW3[: sample.image_HW3.shape[0], : sample.image_HW3.shape[1]] = torch.from_numpy(sample.image_HW3)
    return RawBatch(
        images,
        torch.stack([padded(s.label) for s in samples]),
        torch.stack([padded(s.valid) for s in samples]),
        torch.stack([s.world_from_cam_44 for s in samples]),
        torch.stack([s.K_image_33 for s in samples]),
        torch.stack([s.K_label_33 for s in samples]),
        tuple(s.stem for s in samples),
    )


def prepare_for_evaluation(raw: RawBatch, preprocessing: Preprocessing, task: str) -> Batch:
    """Normalised batch without augmentation; labels resampled only when the image was resized on loading."""
    H, W = raw.images_BHW3.shape[1:3]
    if torch.equal(raw.K_image_B33, raw.K_label_B33):
        labels, valid = raw.labels, raw.valid
    else:
        labels, valid = _resample_labels(raw, task, raw.K_image_B33, torch.eye(3), (H, W))
    return Batch(
        preprocessing.normalise(raw.images_BHW3.permute(0, 3, 1, 2)),
        labels[:, 0].long() if task == "semantics" else labels.float(),
        valid, raw.world_from_cam_B44.float(), raw.K_image_B33.float(), raw.stems,
    )


def prepare_for_training(
    raw: RawBatch, preprocessing: Preprocessing, task: str, options: AugmentationOptions, generator: torch.Generator
) -> Batch:
    """Normalised and augmented batch on the device of `raw`.

    Args:
        generator: CPU random generator; draws are made on the CPU so that every device sees the same augmentation.
    """
    B, H, W = raw.images_BHW3.shape[:3]
    uniform = torch.rand((6 + 5 * B,), generator=generator, dtype=torch.float64)
    shading_BcHW = _shading(raw.images_BHW3, options.shading, generator) if options.shading else None
    scale = options.scale[0] + (options.scale[1] - options.scale[0]) * uniform[0].item()
    roll_rad = math.radians(options.angle_deg) * (2 * uniform[1].item() - 1)
    tilt_rad = (math.radians(options.tilt_deg) * (2 * uniform[4:6] - 1)).tolist()
    gain_B3, offset_B3 = _photometric(raw.images_BHW3, 2 * uniform[6:].reshape(B, 5) - 1, options)

    K_B33 = raw.K_image_B33.clone()
    K_B33[:, :2] *= scale
    K_B33[:, :2, 2] += options.shift * scale * (2 * uniform[2:4] - 1).to(K_B33) * K_B33.new_tensor([W, H])
    size = math.ceil(H * scale), math.ceil(W * scale)
    # Interpolation is quickest on planar images.
    planar_B3HW = raw.images_BHW3.permute(0, 3, 1, 2).contiguous()
    images_B3HW = preprocessing.normalise(planar_B3HW, gain_B3, offset_B3, shading_BcHW)
    # Stays on the CPU: `_image_grid` looks at it, which would make a GPU wait.
    old_from_new_44 = rotation_xy(*tilt_rad) @ rotation_z(roll_rad)
    images_B3HW = _warp(images_B3HW, raw.K_image_B33, K_B33, old_from_new_44[:3, :3], size)

    labels, valid = _resample_labels(raw, task, K_B33, old_from_new_44[:3, :3], size)
    pose_B44 = raw.world_from_cam_B44 @ old_from_new_44.to(raw.world_from_cam_B44)
    return Batch(images_B3HW, labels, valid, pose_B44.float(), K_B33.float(), raw.stems)


def _photometric(
    images_BHW3: torch.Tensor, signed_B5: torch.Tensor, options: AugmentationOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gain and offset [B, 3] of brightness jitter followed by contrast jitter about the image mean."""
    device = images_BHW3.device
    mean_B1 = images_BHW3[:, ::8, ::8].float().mean((1, 2, 3))[:, None] / 255.0
    signed_B5 = signed_B5.to(device=device, dtype=torch.float32)
    brightness_B3 = 1 + options.brightness * signed_B5[:, :1] + options.colour * signed_B5[:, 2:]
    contrast_B1 = 1 + options.contrast * signed_B5[:, 1:2]
    return brightness_B3 * contrast_B1, (1 - contrast_B1) * mean_B1 * brightness_B3


def _shading(images_BHW3: torch.Tensor, amplitude: float, generator: torch.Generator) -> torch.Tensor:
    """Smooth random gain [B, 3, H, W] about one."""
    B, H, W = images_BHW3.shape[:3]
    # Drawn on the CPU, so that every device sees the same.
    signed_B4hw = 2 * torch.rand((B, 4, *_SHADING_NODES), generator=generator) - 1
    nodes_B3hw = (1 + amplitude * (signed_B4hw[:, :1] + 0.5 * signed_B4hw[:, 1:])).to(images_BHW3.device)
    return F.interpolate(nodes_B3hw, (H, W), mode="bilinear", align_corners=True)


def _source_rays(K_dst_B33: torch.Tensor, R_33: torch.Tensor, xy_px_2N: torch.Tensor) -> torch.Tensor:
    """Rays [B, 3, N] in the source camera's frame through pixels of the camera that is turned by R_33 and zoomed."""
    return R_33.to(K_dst_B33) @ pixel_rays(K_dst_B33, xy_px_2N.to(K_dst_B33))


def _source_pixels(
    K_src_B33: torch.Tensor, K_dst_B33: torch.Tensor, R_33: torch.Tensor, xy_px_2N: torch.Tensor
) -> torch.Tensor:
    """Pixels [B, 2, N] of the source camera that see what the turned and zoomed camera sees at `xy_px_2N`."""
    xyw_B3N = K_src_B33 @ _source_rays(K_dst_B33, R_33, xy_px_2N)
    return xyw_B3N[:, :2] / xyw_B3N[:, 2:]


def _normalised(xy_px_B2N: torch.Tensor, height_px: float, width_px: float) -> torch.Tensor:
    """Pixels to grid_sample's [-1, 1] coordinates (align_corners False), last axis (x, y)."""
    size = xy_px_B2N.new_tensor([width_px, height_px])[:, None]
    return (2 * xy_px_B2N / size - 1).transpose(1, 2)


def _warp(
    images_BcHW: torch.Tensor, K_src_B33: torch.Tensor, K_dst_B33: torch.Tensor, R_33: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Turns and zooms images in one bilinear interpolation; uncovered pixels are zero, the mean colour."""
    B, channels, H, W = images_BcHW.shape
    if (K_src_B33 == K_src_B33[:1]).all():
        # One camera: one grid for the batch, whose images become channels, so that weights are computed once.
        grid_1HW2 = _image_grid(K_src_B33[:1], K_dst_B33[:1], R_33, (H, W), size)
        flat_1nHW = images_BcHW.reshape(1, B * channels, H, W)
        warped = F.grid_sample(flat_1nHW, grid_1HW2, mode="bilinear", padding_mode="zeros", align_corners=False)
        return warped.reshape(B, channels, *size)
    grid_BHW2 = _image_grid(K_src_B33, K_dst_B33, R_33, (H, W), size)
    return F.grid_sample(images_BcHW, grid_BHW2, mode="bilinear", padding_mode="zeros", align_corners=False)


def _image_grid(
    K_src_B33: torch.Tensor, K_dst_B33: torch.Tensor, R_33: torch.Tensor, src_size: tuple[int, int], size: tuple[int, int]
) -> torch.Tensor:
    """Sampling grid [B, H, W, 2] of the destination's pixel centres; R_33 on the CPU."""
    H, W = size
    options = {"dtype": K_src_B33.dtype, "device": K_src_B33.device}
    if R_33[2, 2] == 1:
        # Without tilt it is affine: three points define it.
        points_2N = torch.tensor([[W / 2, W, W / 2], [H / 2, H / 2, H]], **options)
        centre_B2, right_B2, down_B2 = _normalised(
            _source_pixels(K_src_B33, K_dst_B33, R_33, points_2N), *src_size
        ).unbind(1)
        theta_B23 = torch.stack((right_B2 - centre_B2, down_B2 - centre_B2, centre_B2), 2).float()
        return F.affine_grid(theta_B23, [len(theta_B23), 3, H, W], align_corners=False)
    y_HW, x_HW = torch.meshgrid(torch.arange(H, **options) + 0.5, torch.arange(W, **options) + 0.5, indexing="ij")
    source_B2N = _source_pixels(K_src_B33, K_dst_B33, R_33, torch.stack((x_HW, y_HW)).flatten(1))
    return _normalised(source_B2N, *src_size).float().reshape(-1, H, W, 2)


def _resample_labels(
    raw: RawBatch, task: str, K_B33: torch.Tensor, R_33: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels and mask on the grid of the destination camera."""
    device = raw.labels.device
    if TASKS[task].fullsize_only:
        grid = _image_grid(raw.K_label_B33, K_B33, R_33, tuple(raw.labels.shape[2:]), size)
        classes = F.grid_sample(raw.labels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return classes[:, 0].long(), torch.ones_like(classes, dtype=torch.bool)

    h, w = grid_size(*size)
    cells_2N = cell_centres(h, w, device=device, dtype=torch.float64).flatten(1)
    source_B2N = _source_pixels(raw.K_label_B33, K_B33, R_33, cells_2N)
    h_src, w_src = raw.labels.shape[2:]
    grid_Bhw2 = _normalised(source_B2N, h_src * STRIDE, w_src * STRIDE).float().reshape(-1, h, w, 2)
    valid_B1hw = _sample(raw.valid.float(), grid_Bhw2, "nearest") > 0.5

    if task == "normal":
        normals_B3hw = _sample(raw.labels, grid_Bhw2, "nearest")
        return torch.einsum("ji,bjhw->bihw", R_33.to(raw.labels), normals_B3hw), valid_B1hw
    # A point keeps its depth along the source's axis; its ray there is scaled to that depth.
    source_rays_B3N = _source_rays(K_B33, R_33, cells_2N).float()
    if task == "depth":
        depth_B1hw = _resample_depth(raw.labels, raw.valid, grid_Bhw2)
        return depth_B1hw / source_rays_B3N[:, 2:].reshape(-1, 1, h, w), valid_B1hw

    cam_from_world_B44 = invert_pose(raw.world_from_cam_B44).float()
    depth_B1hw = transform_points(cam_from_world_B44, raw.labels.flatten(2))[:, 2:].reshape(raw.valid.shape)
    depth_B1N = _resample_depth(depth_B1hw, raw.valid, grid_Bhw2).flatten(2)
    p_cam_B3N = source_rays_B3N / source_rays_B3N[:, 2:] * depth_B1N
    coords_B3hw = transform_points(raw.world_from_cam_B44.float(), p_cam_B3N).reshape(-1, 3, h, w)
    return coords_B3hw, valid_B1hw


def _sample(maps_BChw: torch.Tensor, grid_Bhw2: torch.Tensor, mode: str) -> torch.Tensor:
    return F.grid_sample(maps_BChw, grid_Bhw2, mode=mode, padding_mode="zeros", align_corners=False)


def _resample_depth(depth_B1hw: torch.Tensor, valid_B1hw: torch.Tensor, grid_Bhw2: torch.Tensor) -> torch.Tensor:
    """Depth at the grid: inverse depth is affine on planes, so it is interpolated within a surface; nearest across edges."""
    valid = valid_B1hw.float()
    inverse = torch.where(valid_B1hw & (depth_B1hw > 0), 1 / depth_B1hw.clamp(min=1e-3), 0.0)
    largest = F.max_pool2d(inverse, 3, 1, 1)
    smallest = -F.max_pool2d(-inverse, 3, 1, 1)
    one_surface = (largest <= _MAX_INVERSE_DEPTH_RATIO * smallest).float()
    nearest = _sample(torch.cat((inverse, one_surface), 1), grid_Bhw2, "nearest")
    linear = _sample(torch.cat((inverse, valid), 1), grid_Bhw2, "bilinear")
    interpolate = (nearest[:, 1:] > 0.5) & (linear[:, 1:] > 0.999)
    inverse = torch.where(interpolate, linear[:, :1], nearest[:, :1])
    return torch.where(inverse > 0, 1 / inverse.clamp(min=1e-9), 0.0)
