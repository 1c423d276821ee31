"""Do labels, poses and calibrations belong together? A look at a few samples, before hours are spent on them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from dataloader.images import decode_image
from dataloader.labels import label_stride, read_calibration, read_label, read_pose
from dataloader.section import SectionDataset
from geometry.cameras import project, resize_intrinsics
from geometry.grid import cell_centres
from geometry.poses import invert_pose, transform_points
from tasks import TASKS

logger = logging.getLogger(__name__)

# Labels of other systems may be picked a pixel beside the cell's centre; a wrong convention is off by far more.
_TOLERANCE_PX = 2.0
_TOLERANCE_OF_DIAGONAL = 0.005
_MIN_CELLS = 8
# Share of the tolerance.
_EQUALLY_GOOD = 0.1


@dataclass(frozen=True)
class _Sighting:
    """The labelled cells of one image: scene coordinates, and the pixels of the stored image that see them."""

    stem: str
    p_world_3N: torch.Tensor
    xy_px_2N: torch.Tensor
    world_from_cam_44: torch.Tensor
    K_33: torch.Tensor
    height_px: int
    width_px: int

    @property
    def tolerance_px(self) -> float:
        return max(_TOLERANCE_PX, _TOLERANCE_OF_DIAGONAL * (self.height_px**2 + self.width_px**2) ** 0.5)

    def projected(self, world_from_cam_44: torch.Tensor, K_33: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels [2, N] and depths [N] with a pose and intrinsics."""
        p_cam_13N = transform_points(invert_pose(world_from_cam_44)[None], self.p_world_3N[None])
        xy_12N, depth_1N = project(p_cam_13N, K_33[None], min_depth=1e-6)
        return xy_12N[0], depth_1N[0]

    def median_px(self, world_from_cam_44: torch.Tensor, K_33: torch.Tensor) -> float:
        """Median distance from the cells' centres; a point behind the camera is infinitely far off."""
        xy_2N, depth_N = self.projected(world_from_cam_44, K_33)
        distance_N = torch.linalg.vector_norm(xy_2N - self.xy_px_2N, dim=0)
        return torch.where(depth_N > 0, distance_N, torch.inf).median().item()

    @property
    def as_stated_px(self) -> float:
        return self.median_px(self.world_from_cam_44, self.K_33)


def check_geometry(dataset: SectionDataset, count: int = 8) -> float | None:
    """Projects the scene coordinates of a few samples with their poses and calibrations.

    Args:
        count: images to look at, spread over all sections.
    Returns:
        the largest median distance from the cells' centres, pixels; None where there is no scene coordinate to look at.
    Raises:
        ValueError: an image's labels do not project onto their cells; names the image, the distance and the explanation
            that fits, if a usual one does.
    """
    looked_at = (_sighting(dataset, index) for index in _spread(dataset.section_of, count))
    sightings = [sighting for sighting in looked_at if sighting is not None]
    if not sightings:
        logger.info("poses and calibrations were not checked: there are no scene coordinates (init/) to check them with")
        return None
    wrong = [sighting for sighting in sightings if sighting.as_stated_px > sighting.tolerance_px]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"the labels of {first.stem} do not project onto their cells with its pose and calibration: median distance "
            f"{first.as_stated_px:.1f} px, at most {first.tolerance_px:.1f} px is right ({len(wrong)} of {len(sightings)} "
            f"images looked at disagree). {_explanation(first)}"
        )
    return max(sighting.as_stated_px for sighting in sightings)


def _spread(section_of: list[str], count: int) -> list[int]:
    """Indices of samples, evenly over each section, at least one of each."""
    chosen: list[int] = []
    sections = [list(group) for _, group in itertools.groupby(range(len(section_of)), key=section_of.__getitem__)]
    for indices in sections:
        n = min(len(indices), max(1, count // len(sections)))
        chosen += [indices[i * len(indices) // n] for i in range(n)]
    return chosen


def _sighting(dataset: SectionDataset, index: int) -> _Sighting | None:
    files, task = dataset.files[index], TASKS["coord"]
    label_path = files.image.parent.parent / task.label_folder / f"{files.image.stem}{task.label_suffix}"
    if not label_path.is_file():
        return None
    coords_3hw, valid_1hw = read_label(label_path, task)
    if valid_1hw.sum() < _MIN_CELLS:
        return None
    H, W = decode_image(files.image).shape[:2]
    stride = label_stride(label_path, coords_3hw, H, W, task)
    valid_hw = valid_1hw[0]
    centres_2hw = cell_centres(*valid_hw.shape, stride, dtype=torch.float64)
    return _Sighting(
        dataset.stems[index],
        coords_3hw[:, valid_hw].double(),
        centres_2hw[:, valid_hw],
        read_pose(files.pose),
        read_calibration(files.calibration, H, W),
        H,
        W,
    )


@dataclass(frozen=True)
class _Mistake:
    """A usual mistake and what would be right instead."""

    text: str
    world_from_cam_44: torch.Tensor
    K_33: torch.Tensor


def _explanation(sighting: _Sighting) -> str:
    """The mistake without which the labels fit; of several that do so about equally well, the most usual one."""
    mistakes = list(_mistakes(sighting))
    left_px = [sighting.median_px(mistake.world_from_cam_44, mistake.K_33) for mistake in mistakes]
    if min(left_px) > sighting.tolerance_px:
        return "No usual mistake of pose or calibration explains it: are the labels those of this photo and scene?"
    good_px = min(left_px) + _EQUALLY_GOOD * sighting.tolerance_px
    mistake, px = next(pair for pair in zip(mistakes, left_px) if pair[1] <= good_px)
    return f"It looks as if {mistake.text}: with that put right, the distance is {px:.2f} px"


def _mistakes(sighting: _Sighting) -> Iterator[_Mistake]:
    """From the most usual one on."""
    pose_44, K_33 = sighting.world_from_cam_44, sighting.K_33
    yield from _calibrations(sighting, pose_44, "")
    poses = [
        ("the pose were world-to-camera; poses/ wants camera-to-world, its inverse", invert_pose(pose_44)),
        (
            "the camera's y and z axes were flipped (OpenGL); poses/ wants OpenCV's: x right, y down, z forward",
            pose_44 @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)),
        ),
    ]
    for before, base_44 in (("", pose_44), (f"{poses[0][0]}; and ", poses[0][1])):
        poses += [
            (f"{before}the camera's axes were swapped: the pose's {_axes(R)} are right, down and forward", base_44 @ R)
            for R in _turns()
        ]
        # Two swapped axes mirror the world (longitude and latitude, say): no pose does, but distances can be measured.
        poses += [
            (f"{before}world axes were swapped: x, y and z of the labels are the pose's {_axes(R)}", R.T @ base_44)
            for R in _turns(mirrored=True)
        ]
    for text, right_44 in poses:
        yield _Mistake(text, right_44, K_33)
    for text, right_44 in poses[:2]:
        yield from _calibrations(sighting, right_44, f"{text}; and ")


def _calibrations(sighting: _Sighting, pose_44: torch.Tensor, before: str) -> Iterator[_Mistake]:
    """Intrinsics of the image at another size, and another focal length, fitted to the labels."""
    K_33, (H, W) = sighting.K_33, (sighting.height_px, sighting.width_px)
    # The principal point lies in the middle of nearly every image.
    stated_width_px = max(2 * K_33[0, 2].item(), 1.0)
    resized_33 = resize_intrinsics(K_33, W / stated_width_px, W / stated_width_px)
    yield _Mistake(
        f"{before}the calibration were of an image of {stated_width_px:.0f} px in width, the stored one has {W} x {H} px",
        pose_44,
        resized_33,
    )
    factor = _focal_factor(sighting, pose_44)
    if factor > 0:
        fitted_33 = K_33.clone()
        fitted_33[[0, 1], [0, 1]] /= factor
        yield _Mistake(
            f"{before}the focal length were {factor:.3g} times what the labels say ({K_33[0, 0]:.6g} px in calibration/, "
            f"{fitted_33[0, 0]:.6g} px by the labels); calibration/ wants that of the stored image, {W} x {H} px",
            pose_44,
            fitted_33,
        )


def _focal_factor(sighting: _Sighting, pose_44: torch.Tensor) -> float:
    """By how much the calibration's focal length exceeds the one with which the labels fit."""
    xy_2N, depth_N = sighting.projected(pose_44, sighting.K_33)
    centre_21 = sighting.K_33[:2, 2:]
    stated_2N, seen_2N = (v[:, depth_N > 0] - centre_21 for v in (xy_2N, sighting.xy_px_2N))
    if stated_2N.shape[1] < _MIN_CELLS:
        return 0.0
    # The median of ratios: few labels may be wrong.
    ratio_N = torch.linalg.vector_norm(stated_2N, dim=0) / torch.linalg.vector_norm(seen_2N, dim=0).clamp(min=1e-9)
    return ratio_N.median().item()


def _turns(mirrored: bool = False) -> Iterator[torch.Tensor]:
    """The rotations, or mirrorings too, that map axes onto axes, but for none at all, as poses [4, 4]."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            R_44 = torch.eye(4, dtype=torch.float64)
            R_44[:3, :3] = torch.eye(3, dtype=torch.float64)[:, list(order)] * torch.tensor(signs, dtype=torch.float64)
            if (mirrored or torch.linalg.det(R_44) > 0) and not torch.equal(R_44, torch.eye(4, dtype=torch.float64)):
                yield R_44


def _axes(R_44: torch.Tensor) -> str:
    """The axes that the columns of a turn are: "x, -z and y"."""
    names = []
    for column in R_44[:3, :3].T:
        axis = int(column.abs().argmax())
        names.append(("" if column[axis] > 0 else "-") + "xyz"[axis])
    return f"{names[0]}, {names[1]} and {names[2]}"
