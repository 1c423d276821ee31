"""A photo's pose by onnxruntime and the solver, as an example of what a program has to do around the exported file.

`python -m exports.onnx_pose NET.onnx PHOTO FX FY CX CY`: decode, resize, network, solver.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

import dsacstar
from exports.onnx import METADATA_KEY


def pose_of(network: Path, image_HW3: np.ndarray, fx_fy_cx_cy: tuple[float, float, float, float]) -> dsacstar.Result:
    """The pose of an upright photo without distortion.

    Args:
        network: as `exports.onnx` writes it, of the coord task.
        image_HW3: uint8 RGB. fx_fy_cx_cy: of that image, pixels.
    Raises:
        FileNotFoundError: no such network.
        ValueError: onnxruntime is missing, or the network is no exported coord network.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("this needs the optional package onnxruntime (setup/requirements-extras.txt)") from None
    if not network.is_file():
        raise FileNotFoundError(f"network file not found: {network}")
    try:
        session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    except Exception as error:  # its kinds of error have no other base
        raise ValueError(f"{network} cannot be loaded by onnxruntime: {error}") from None
    metadata = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
    if metadata.get("task") != "coord":
        raise ValueError(f"{network} is not a network of the coord task that was exported by this project")
    height, width = image_HW3.shape[:2]
    scale = metadata["image_height"] / min(height, width)
    small_HW3 = cv2.resize(image_HW3, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    images_13HW = np.ascontiguousarray(small_HW3.transpose(2, 0, 1)[None])
    coords_13hw, *sigma = session.run(None, {"image": images_13HW})
    size_4 = np.array([small_HW3.shape[1] / width, small_HW3.shape[0] / height] * 2)
    options = dsacstar.RansacOptions(subsampling=metadata["stride"])
    (result,) = dsacstar.solve(
        coords_13hw, np.array(fx_fy_cx_cy) * size_4, options=options, sigma=sigma[0][:, 0] if sigma else None, seed=2021
    )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m exports.onnx_pose", description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"))
    args = parser.parse_args()
    picture_HW3 = cv2.imread(str(args.photo))  # upright: OpenCV obeys the EXIF orientation
    if picture_HW3 is None:
        print(f"error: cannot read the photo {args.photo}", file=sys.stderr)
        return 2
    try:
        result = pose_of(args.network, cv2.cvtColor(picture_HW3, cv2.COLOR_BGR2RGB), tuple(args.intrinsics))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    np.savetxt(sys.stdout, result.pose, fmt="%.9g")
    print(f"confidence {result.confidence:.2f}, {result.inliers} inliers" if result.success else "no pose")
    return 0


if __name__ == "__main__":
    sys.exit(main())
