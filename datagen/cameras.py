"""Cameras and where they come from: cameras.json, COLMAP models, folders of pose files."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import torch

from geometry.poses import check_pose
from records import files

# In COLMAP's FULL_OPENCV model; its first four alone are the OPENCV model.
_OPENCV_COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")


@dataclass(frozen=True)
class Lens:
    """A COLMAP camera model by name, with its parameters in COLMAP's order (focal lengths, centre, distortion)."""

    model: str
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class Camera:
    """A named view.

    Attributes:
        world_from_cam_44: OpenCV camera axes, metres.
        K_33: continuous pixels of an image width x height.
        lens: how the photo is distorted, None for a pinhole image.
        file: name of the photo, empty when there is none.
    """

    stem: str
    world_from_cam_44: np.ndarray
    K_33: np.ndarray
    width: int
    height: int
    lens: Lens | None = None
    file: str = ""


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K [3, 3] float64."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def centred_intrinsics(focal_px: float, width: int, height: int) -> np.ndarray:
    """K [3, 3] of an image with its principal point at the centre."""
    return intrinsics(focal_px, focal_px, width / 2, height / 2)


def read_pose_file(path: Path) -> np.ndarray:
    """Camera-to-world matrix [4, 4] from a text file.

    Raises:
        ValueError: not four rows of four numbers, or not a rigid transform.
    """
    rows = [line.split() for line in Path(path).read_text().splitlines() if line.strip()]
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise ValueError(f"pose file {path}: expected 4 rows of 4 numbers, found rows of {[len(row) for row in rows]}")
    return checked_pose(rows, f"pose file {path}")


def checked_pose(rows, name: str) -> np.ndarray:
    """A camera-to-world matrix float64 [4, 4]; ValueError beginning with `name` when it is none."""
    try:
        pose_44 = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a 4 x 4 matrix of numbers") from None
    check_pose(torch.from_numpy(pose_44), name)
    return pose_44


def read_pose_folder(folder: Path, K_33: np.ndarray, width: int, height: int) -> list[Camera]:
    """Cameras of a folder of pose files, such as a section's `poses/`; hidden files are none."""
    paths = sorted(path for path in Path(folder).glob("*.txt") if not path.name.startswith("."))
    if not paths:
        raise ValueError(f"pose folder {folder}: no *.txt pose files")
    return [Camera(path.stem, read_pose_file(path), K_33, width, height) for path in paths]


def read_cameras_json(path: Path) -> list[Camera]:
    """Cameras of a `cameras.json`: width, height, focal_length_px, optional principal_point_px and distortion, photos.

    focal_length_px is one number or [fx, fy]; distortion holds OpenCV's coefficients k1 k2 p1 p2 [k3 [k4 k5 k6]]. A photo
    may have its own width, height, focal_length_px, principal_point_px and distortion.

    Raises:
        FileNotFoundError, ValueError: missing file or entries, named.
    """
    path = Path(path)
    document = read_json(path, "cameras file")
    try:
        entries = document["photos"]
        if not entries:
            raise ValueError("'photos' is empty")
        stems = unique_stems([entry["file"] for entry in entries])
        cameras = []
        for number, (entry, stem) in enumerate(zip(entries, stems, strict=True)):
            pose_44 = checked_pose(entry["cam_to_world"], f"{path}, photo {number} ({entry['file']})")
            cameras.append(json_camera({**document, **entry}, stem, pose_44))
    except KeyError as error:
        raise ValueError(f"cameras file {path}: entry {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"cameras file {path}: {error}") from None
    return sorted(cameras, key=lambda camera: camera.stem)


def json_camera(entry: dict, stem: str, pose_44: np.ndarray) -> Camera:
    """The camera of a photo's entry in a `cameras.json`, with what all photos share; KeyError, TypeError, ValueError."""
    width, height = int(entry["width"]), int(entry["height"])
    focal = entry["focal_length_px"]
    fx, fy = (float(value) for value in ((focal, focal) if np.isscalar(focal) else focal))
    cx, cy = (float(value) for value in entry.get("principal_point_px", (width / 2, height / 2)))
    if min(width, height) < 1 or not (0 < fx < np.inf and 0 < fy < np.inf):
        raise ValueError(f"{entry['file']}: {width} x {height} px with a focal length of {focal} px")
    lens = _opencv_lens((fx, fy, cx, cy), [float(value) for value in entry.get("distortion", ())])
    return Camera(stem, pose_44, intrinsics(fx, fy, cx, cy), width, height, lens, entry["file"])


def _opencv_lens(pinhole: tuple[float, float, float, float], coefficients: list[float]) -> Lens | None:
    if not any(coefficients):
        return None
    if len(coefficients) > len(_OPENCV_COEFFICIENTS):
        raise ValueError(
            f"'distortion' has {len(coefficients)} coefficients; up to {len(_OPENCV_COEFFICIENTS)} are known "
            f"({' '.join(_OPENCV_COEFFICIENTS)}); a COLMAP model can hold other lenses"
        )
    count = 4 if len(coefficients) <= 4 else len(_OPENCV_COEFFICIENTS)
    padded = coefficients + [0.0] * (count - len(coefficients))
    return Lens("OPENCV" if count == 4 else "FULL_OPENCV", (*pinhole, *padded))


def read_colmap(folder: Path) -> list[Camera]:
    """Cameras of a COLMAP text or binary model whose frame is the geodata's CRS, of any of its perspective camera models.

    Raises:
        FileNotFoundError: no model there. ValueError: a camera model without a pinhole image, or no images.
    """
    import pycolmap

    folder = Path(folder)
    if not any((folder / f"images{suffix}").is_file() for suffix in (".txt", ".bin")):
        raise FileNotFoundError(f"COLMAP model {folder}: no images.txt or images.bin there")
    try:
        model = pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"COLMAP model {folder}: cannot be read ({error})") from None
    images = [image for _, image in sorted(model.images.items()) if image.has_pose]
    if not images:
        raise ValueError(f"COLMAP model {folder}: no registered image")
    names = {image.image_id: image.name for image in images}
    if not (folder / "images.bin").is_file():
        names = _whole_names(folder / "images.txt", names)
    named = [names[image.image_id] for image in images]
    try:
        stems = unique_stems(named)
    except ValueError as error:
        raise ValueError(f"COLMAP model {folder}: {error}") from None
    cameras = []
    for image, file, stem in zip(images, named, stems, strict=True):
        world_from_cam_44 = np.eye(4)
        world_from_cam_44[:3] = image.cam_from_world().inverse().matrix()
        K_33, lens = _colmap_lens(model.cameras[image.camera_id], f"COLMAP model {folder}: camera of {file}")
        size = model.cameras[image.camera_id].width, model.cameras[image.camera_id].height
        cameras.append(Camera(stem, world_from_cam_44, K_33, int(size[0]), int(size[1]), lens, file))
    return sorted(cameras, key=lambda camera: camera.stem)


def _colmap_lens(camera, name: str) -> tuple[np.ndarray, Lens | None]:
    """K [3, 3] and lens of a pycolmap camera."""
    try:
        K_33 = np.array(camera.calibration_matrix(), np.float64)
    except (ValueError, RuntimeError):
        raise ValueError(f"{name}: a {camera.model.name} picture has no pinhole image") from None
    if not camera.verify_params() or not np.isfinite(camera.params).all() or min(K_33[0, 0], K_33[1, 1]) <= 0:
        raise ValueError(f"{name}: parameters {list(camera.params)} do not fit the model {camera.model.name}")
    # A fisheye bends lines without any coefficient.
    if not any(camera.params[i] for i in camera.extra_params_idxs()) and "FISHEYE" not in camera.model.name:
        return K_33, None
    return K_33, Lens(camera.model.name, tuple(float(value) for value in camera.params))


def _whole_names(images_txt: Path, names: dict[int, str]) -> dict[int, str]:
    """Image names by id with what stands after a space: pycolmap reads a name of the text form only up to its first."""
    found = {}
    with images_txt.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                fields = line.split(maxsplit=9)
                found[int(fields[0])] = fields[-1].strip()
                # The image's key points, on a line of their own that may be empty; pycolmap reads over what stands there.
                if _is_image_line(next(lines, "")):
                    raise ValueError(
                        f"COLMAP model {images_txt}: the line after the image {fields[-1].strip()!r} is another image; "
                        "every image takes two lines, the second (key points) may be empty"
                    )
    wrong = [name for number, name in names.items() if not found.get(number, "").startswith(name)]
    if wrong:
        raise ValueError(
            f"COLMAP model {images_txt}: image names cannot be read (such as {wrong[0]!r}); write the binary model, "
            "which names with spaces need"
        )
    return {number: found[number] for number in names}


def _is_image_line(line: str) -> bool:
    """Whether a line ends in a name: key points are numbers only."""
    try:
        return bool(line.strip()) and not all(np.isfinite(float(word)) for word in line.split())
    except ValueError:
        return True


def unique_stems(photos: list[str]) -> list[str]:
    """Names for samples: the file's name without its ending, with its folders before it where that alone is not unique.

    `flight1/DJI_0001.JPG` and `flight2/DJI_0001.JPG` become flight1_DJI_0001 and flight2_DJI_0001.

    Raises:
        ValueError: two files still have one name (upper and lower case are one, as on many disks), or one is hidden.
    """
    bare = [PurePath(file).stem for file in photos]
    count = Counter(stem.casefold() for stem in bare)
    folders = [tuple(part for part in PurePath(file).parts[:-1] if part not in ("..", "/")) for file in photos]
    shared = len(os.path.commonprefix(folders))  # noqa: RUF071 - whole parts, which is what it does with tuples
    stems = [
        "_".join((*folder[shared:], stem)) if count[stem.casefold()] > 1 else stem
        for folder, stem in zip(folders, bare, strict=True)
    ]
    owner: dict[str, str] = {}
    for file, stem in zip(photos, stems, strict=True):
        if not stem or stem.startswith("."):
            raise ValueError(f"photo {file!r} has a hidden name; rename it")
        if stem.casefold() in owner:
            raise ValueError(
                f"two photos are called {stem!r} ({owner[stem.casefold()]}, {file}); rename one, or put them into "
                "folders of their own"
            )
        owner[stem.casefold()] = file
    return stems


def read_json(path: Path, what: str) -> dict:
    """A JSON object from a file; every failure names the file."""
    document = files.read_json(path, what)
    if not isinstance(document, dict):
        raise ValueError(f"{what} {path}: expected a JSON object, found {type(document).__name__}")
    return document
