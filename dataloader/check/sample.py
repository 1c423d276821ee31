"""One sample: every file of it is read, its numbers are looked at, and its labels are held against its pose."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from dataloader.check.finding import Finding
from dataloader.check.surfaces import check_depth, check_normals
from dataloader.images import decode_image
from dataloader.labels import label_camera, read_calibration, read_pose, stored_classes, stored_map
from dataloader.sighting import Sighting, sighting_of
from geometry.grid import NODATA
from tasks import LAS_CODE_TO_CLASS, TASKS

# A photo whose grey values spread less shows nothing.
_BLANK_STD = 2.0
# Horizontal fields of view of aerial cameras; a wrong unit of the focal length leads far outside.
_FIELD_OF_VIEW_DEG = (5.0, 140.0)
_MOSTLY = 0.9
_DIFFERENT_NODATA = 0.05
# float32 coordinates so far from the origin are rounded to a centimetre, and to a decimetre.
_GRAIN_SAID_M, _GRAIN_REFUSED_M = 0.01, 0.1
# Of an image: what near-duplicates, coverage and pairs are judged by.
_GROUND_POINTS = 64
_THUMBNAIL = (36, 24)


@dataclass(frozen=True)
class SampleFiles:
    """Where the files of a sample are, by folder; absent ones are left out."""

    section: str
    stem: str
    paths: dict[str, Path]


@dataclass
class Seen:
    """What one sample is, and what is wrong with it.

    Attributes:
        pixels: digest of the decoded image. size: its height and width.
        world_from_cam_44, K_33: float64, None when unreadable.
        label_digests: of the stored labels by folder.
        nodata: share of the coordinate cells.
        depth_m: median camera-frame depth. ground_N3: some of its points. off_px: median distance of labels from cells.
        wrong: what the explanation of wrong geometry needs, where it is wrong.
        thumbnail: small grey image, zero mean and unit length.
    """

    section: str
    stem: str
    findings: list[Finding] = field(default_factory=list)
    pixels: str = ""
    size: tuple[int, int] | None = None
    world_from_cam_44: np.ndarray | None = None
    K_33: np.ndarray | None = None
    label_digests: dict[str, str] = field(default_factory=dict)
    nodata: float | None = None
    depth_m: float | None = None
    ground_N3: np.ndarray | None = None
    off_px: float | None = None
    wrong: Sighting | None = None
    thumbnail: np.ndarray | None = None

    def add(self, kind: str, text: str) -> None:
        """A finding of this sample."""
        self.findings.append(Finding(kind, self.section, self.stem, text))

    @contextmanager
    def noting(self, kind: str) -> Iterator[None]:
        """A file that cannot be read becomes a finding."""
        try:
            yield
        except (ValueError, OSError) as error:
            self.add(kind, str(error))


def inspect(files: SampleFiles) -> Seen:
    """Looks at everything of one sample; whatever is wrong with it is among its findings."""
    seen = Seen(files.section, files.stem)
    try:
        _look_at_image(seen, files.paths)
        _look_at_camera(seen, files.paths)
        _look_at_labels(seen, files.paths)
    except Exception as error:  # one sample must not end the check of ten thousand
        seen.add("cannot-be-checked", f"{type(error).__name__}: {error}")
    return seen


def _look_at_image(seen: Seen, paths: dict[str, Path]) -> None:
    if "rgb" not in paths:
        return
    with seen.noting("unreadable-image"):
        image_HW3 = decode_image(paths["rgb"])
        seen.size = image_HW3.shape[:2]
        seen.pixels = hashlib.blake2b(image_HW3.tobytes() + repr(image_HW3.shape).encode(), digest_size=16).hexdigest()
        small_hw = cv2.resize(image_HW3, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32).mean(2)
        centred_hw = small_hw - small_hw.mean()
        length = float(np.linalg.norm(centred_hw))
        if image_HW3[::4, ::4].std() < _BLANK_STD:
            seen.add("blank-image", f"the image shows one colour (standard deviation {image_HW3.std():.2g})")
        elif length > 0:
            seen.thumbnail = centred_hw.ravel() / length


def _look_at_camera(seen: Seen, paths: dict[str, Path]) -> None:
    if "poses" in paths:
        with seen.noting("bad-pose"):
            seen.world_from_cam_44 = read_pose(paths["poses"]).numpy()
    if "calibration" in paths and seen.size is not None:
        H, W = seen.size
        with seen.noting("bad-calibration"):
            K_33 = read_calibration(paths["calibration"], H, W).numpy()
            seen.K_33 = K_33
            view_deg = math.degrees(2 * math.atan(W / (2 * K_33[0, 0])))
            if not _FIELD_OF_VIEW_DEG[0] <= view_deg <= _FIELD_OF_VIEW_DEG[1] or not 0.8 < K_33[0, 0] / K_33[1, 1] < 1.25:
                seen.add(
                    "implausible-focal-length",
                    f"{paths['calibration']}: focal lengths of {K_33[0, 0]:.6g} and {K_33[1, 1]:.6g} px make a view of "
                    f"{view_deg:.1f} degrees over {W} px; the unit is the pixel of the stored image",
                )
            if not (0 <= K_33[0, 2] <= W and 0 <= K_33[1, 2] <= H):
                seen.add(
                    "bad-calibration",
                    f"{paths['calibration']}: the principal point {K_33[0, 2]:.6g} {K_33[1, 2]:.6g} is outside of the "
                    f"{W} x {H} px image",
                )


@dataclass(frozen=True)
class _Map:
    """A label map in float64: values [C, h, w], zero where it is not valid [h, w]."""

    values_Chw: torch.Tensor
    valid_hw: torch.Tensor


def _look_at_labels(seen: Seen, paths: dict[str, Path]) -> None:
    maps = {}
    for name in ("coord", "depth", "normal"):
        folder = TASKS[name].label_folder
        if folder in paths:
            with seen.noting("unreadable-label"):
                found = _map_of(seen, name, paths[folder])
                if found is not None:
                    maps[name] = found
    if "semantics" in paths:
        with seen.noting("unreadable-label"):
            _look_at_classes(seen, paths["semantics"])
    if "coord" in maps:
        _look_at_coordinates(seen, maps["coord"], paths[TASKS["coord"].label_folder])
    if "depth" in maps:
        _look_at_depth_range(seen, maps["depth"])
    if seen.world_from_cam_44 is not None and "coord" in maps:
        _look_at_geometry(seen, maps, paths)


def _map_of(seen: Seen, name: str, path: Path) -> _Map | None:
    task, label = TASKS[name], stored_map(path)
    seen.label_digests[task.label_folder] = hashlib.blake2b(
        label.contiguous().view(torch.uint8).numpy().tobytes() if label.numel() else b"", digest_size=16
    ).hexdigest()
    if label.dtype != torch.float32:
        seen.add("label-type", f"{path} holds {str(label.dtype).removeprefix('torch.')} values, float32 is meant")
    label = label.double()
    label = label[None] if task.label_channels == 0 and label.ndim == 2 else label
    channels = max(task.label_channels, 1)
    if label.ndim != 3 or label.shape[0] != channels:
        seen.add("label-shape", f"{path} must have shape [{channels}, h, w], found {list(label.shape)}")
        return None
    if not torch.isfinite(label).all():
        bad = int((~torch.isfinite(label)).any(0).sum())
        seen.add("label-not-finite", f"{path}: {bad} cells are NaN or infinite; nodata is written as {NODATA:g}")
    valid_hw = ((label != NODATA) & torch.isfinite(label)).all(0)
    if not _fits(seen, name, path, label):
        return None
    return _Map(torch.where(valid_hw, label, 0.0), valid_hw)


def _fits(seen: Seen, name: str, path: Path, label_Chw: torch.Tensor) -> bool:
    if seen.size is None:
        return True
    try:
        label_camera(path, label_Chw, *seen.size, TASKS[name], torch.eye(3, dtype=torch.float64))
    except ValueError as error:
        seen.add("label-shape", str(error))
        return False
    return True


def _look_at_classes(seen: Seen, path: Path) -> None:
    codes_HW = stored_classes(path)
    seen.label_digests["semantics"] = hashlib.blake2b(codes_HW.tobytes(), digest_size=16).hexdigest()
    if codes_HW.dtype.kind not in "iu":
        seen.add("label-type", f"{path} holds {codes_HW.dtype} values, LAS codes as uint8 are meant")
    if codes_HW.ndim != 2:
        seen.add("label-shape", f"{path} must have shape [H, W], found {list(codes_HW.shape)}")
        return
    if codes_HW.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(codes_HW.ravel(), minlength=256)).tolist()
    else:
        found = np.unique(codes_HW).tolist()
    unknown = [code for code in found if code not in LAS_CODE_TO_CLASS]
    if unknown:
        named = ", ".join(f"{code:g}" for code in unknown[:8])
        seen.add("class-code", f"{path}: LAS codes {named} have no class; known are {sorted(LAS_CODE_TO_CLASS)}")
    codes_1HW = torch.from_numpy(codes_HW[None])
    if seen.size is not None and _is_coarse(seen, path, codes_1HW):
        seen.add("coarse-classes", f"{path}: {list(codes_HW.shape)} classes, one a label cell; networks take one a pixel")
    else:
        _fits(seen, "semantics", path, codes_1HW)


def _is_coarse(seen: Seen, path: Path, codes_1HW: torch.Tensor) -> bool:
    """Whether a class map has the size of coordinates and not that of its image."""
    for name, coarse in (("semantics", False), ("coord", True)):
        with suppress(ValueError):
            label_camera(path, codes_1HW, *seen.size, TASKS[name], torch.eye(3, dtype=torch.float64))
            return coarse
    return False


def _look_at_coordinates(seen: Seen, coords: _Map, path: Path) -> None:
    seen.nodata = 1 - float(coords.valid_hw.double().mean())
    if seen.nodata > _MOSTLY:
        seen.add("mostly-nodata", f"{100 * seen.nodata:.0f} % of the cells of {path} are nodata")
    farthest_m = float(coords.values_Chw.abs().max())
    grain_m = float(np.spacing(np.float32(farthest_m)))
    if grain_m > _GRAIN_SAID_M:
        kind = "far-coordinates" if grain_m > _GRAIN_REFUSED_M else "coarse-coordinates"
        seen.add(
            kind,
            f"{path}: coordinates of up to {farthest_m:.0f} m, of which float32 keeps {grain_m:.2g} m; subtract an origin "
            "close to the scene from labels and poses",
        )


def _look_at_depth_range(seen: Seen, depth: _Map) -> None:
    wrong = int(((depth.values_Chw[0] <= 0) & depth.valid_hw).sum())
    if wrong:
        lowest = float(depth.values_Chw[0][depth.valid_hw].min())
        seen.add("depth-range", f"{wrong} cells have a depth that is not positive, down to {lowest:.4g} m")


def _look_at_geometry(seen: Seen, maps: dict[str, _Map], paths: dict[str, Path]) -> None:
    """Labels against the pose, and against each other."""
    coords = maps["coord"]
    pose_44 = torch.from_numpy(seen.world_from_cam_44)
    h, w = coords.valid_hw.shape
    cam_from_world_33 = pose_44[:3, :3].T
    p_cam_3hw = (cam_from_world_33 @ (coords.values_Chw.reshape(3, -1) - pose_44[:3, 3:])).reshape(3, h, w)
    if coords.valid_hw.any():
        seen.depth_m = float(p_cam_3hw[2][coords.valid_hw].median())
        ground_3N = coords.values_Chw[:, coords.valid_hw]
        seen.ground_N3 = ground_3N[:, :: -(-ground_3N.shape[1] // _GROUND_POINTS)].T.float().numpy()
    if seen.K_33 is not None:
        folder = TASKS["coord"].label_folder
        camera = label_camera(paths[folder], coords.values_Chw, *seen.size, TASKS["coord"], torch.from_numpy(seen.K_33))
        sighting = sighting_of(seen.stem, coords.values_Chw, coords.valid_hw, pose_44, camera)
        if sighting is not None:
            seen.off_px = sighting.as_stated_px
            seen.wrong = None if sighting.is_right else sighting.thinned()
    for name in ("depth", "normal"):
        if name not in maps or maps[name].valid_hw.shape != coords.valid_hw.shape:
            continue
        other = maps[name]
        apart = float((other.valid_hw != coords.valid_hw).double().mean())
        if apart > _DIFFERENT_NODATA:
            seen.add("nodata-mismatch", f"{100 * apart:.0f} % of the cells are nodata in only one of init and {name}")
        valid_hw = coords.valid_hw & other.valid_hw
        # A pose that contradicts the coordinates says nothing about other labels.
        if seen.wrong is None and valid_hw.any():
            check = check_depth if name == "depth" else check_normals
            for kind, text in check(p_cam_3hw, other.values_Chw, valid_hw, cam_from_world_33):
                seen.add(kind, text)
