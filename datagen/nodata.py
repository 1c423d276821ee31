"""What files do not say is missing: fill values among heights, black and white collars, near infrared tagged as alpha."""

from __future__ import annotations

import cv2
import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

# No ground of the Earth is lower (Dead Sea shore -440, open pits -300) or higher, metres, whatever the vertical datum.
LOWEST_M, HIGHEST_M = -500.0, 9000.0
# Repeated extremes inside that range count as fill when the rest of the heights leaves this gap to them.
_ZERO_GAP_M, _ZERO_GAP_SPREADS = 10.0, 0.2
_GAP_M, _GAP_SPREADS = 100.0, 2.0
_MIN_REPEATS, _MIN_DISTINCT, _MAX_FILL_SHARE = 16, 8, 0.9
_SAMPLE = 100_000
# Files resampled with their fill in them have blends of fill and ground this close to it, cells.
_BLEND_CELLS = 2
_BLEND_MARGIN_M = 50.0

# Solid patches at least this wide (pixels) count as missing colour, dilated by the JPEG fringe.
_PATCH_PX = 9
_FRINGE_PX = 3

# An alpha band with more than this share of values between opaque and transparent, and that many of them, is no alpha.
_PARTIAL_SHARE, _PARTIAL_VALUES = 0.2, 16
_ALPHA_WINDOW = 2048


def missing_heights(
    raw_rc: np.ndarray, heights_rc: np.ndarray, valid_rc: np.ndarray, *, declared: bool
) -> tuple[np.ndarray, list[float]]:
    """Cells without a surface, bool [rows, cols], and the undeclared fill values found, as stored in the file.

    Args:
        raw_rc: as stored. heights_rc: the same in metres. valid_rc: False where the file itself says nodata.
        declared: whether the file says what nodata is; then extremes that could be heights are left alone.
    """
    missing = ~valid_rc | ~np.isfinite(heights_rc)
    # Not finite under comparison is False on both sides, which is what is wanted.
    impossible = ~missing & ~((heights_rc >= LOWEST_M) & (heights_rc <= HIGHEST_M))
    fills = _most_frequent(raw_rc[impossible])
    missing |= impossible
    for extreme in () if declared else (np.min, np.max):
        clear = ~_near(missing)
        if not clear.any():
            break
        same = ~missing & (heights_rc == extreme(heights_rc[clear]))
        if _is_fill(heights_rc, same, clear & ~same, stored_zero=not raw_rc[same][0]):
            fills += _most_frequent(raw_rc[same])
            missing |= same
    if fills:
        missing |= _blends(heights_rc, missing)
    return missing, fills


def _most_frequent(raw_N: np.ndarray) -> list[float]:
    if not raw_N.size:
        return []
    values, counts = np.unique(raw_N[:: max(1, raw_N.size // _SAMPLE)], return_counts=True)
    return [float(values[np.argmax(counts)])]


def _is_fill(heights_rc: np.ndarray, same_rc: np.ndarray, rest_rc: np.ndarray, *, stored_zero: bool) -> bool:
    """Whether an extreme is repeated and so far off everything else that it is no ground.

    Flat ground under blocks has a gap to their roofs, too: those take few levels, or lie apart from each other.
    """
    repeats, others = np.count_nonzero(same_rc), np.count_nonzero(rest_rc)
    if repeats < _MIN_REPEATS or others < (1 - _MAX_FILL_SHARE) * same_rc.size:
        return False
    rest, value = heights_rc[rest_rc], heights_rc[same_rc][0]
    sample = rest[:: max(1, rest.size // _SAMPLE)]
    low, high = np.percentile(sample, (5, 95))
    gap_m, spreads = (_ZERO_GAP_M, _ZERO_GAP_SPREADS) if stored_zero else (_GAP_M, _GAP_SPREADS)
    if len(np.unique(sample)) < _MIN_DISTINCT or np.abs(rest - value).min() < max(gap_m, spreads * (high - low)):
        return False
    _, _, statistics, _ = cv2.connectedComponentsWithStats(rest_rc.astype(np.uint8))
    return statistics[1:, cv2.CC_STAT_AREA].max() > others / 2


def _blends(heights_rc: np.ndarray, missing_rc: np.ndarray) -> np.ndarray:
    """Cells beside missing ones that lie far outside the other heights."""
    known = heights_rc[~missing_rc]
    if not known.size:
        return np.zeros_like(missing_rc)
    low, high = np.percentile(known[:: max(1, known.size // _SAMPLE)], (5, 95))
    margin = max(high - low, _BLEND_MARGIN_M)
    return _near(missing_rc) & ~missing_rc & ((heights_rc < low - margin) | (heights_rc > high + margin))


def _near(missing_rc: np.ndarray) -> np.ndarray:
    """Missing cells and those beside them, which may be blends of fill and ground."""
    size = 2 * _BLEND_CELLS + 1
    return cv2.dilate(missing_rc.astype(np.uint8), np.ones((size, size), np.uint8)) > 0


def black_patches(colour_HW3: np.ndarray) -> np.ndarray:
    """Solid black patches with their fringe, [rows, cols] bool."""
    return _dilated(_solid(colour_HW3.max(axis=2) == 0))


def white_collar(colour_HW3: np.ndarray, covered_HW: np.ndarray) -> np.ndarray:
    """Solid white patches that reach the border of what is covered, with their fringe, [rows, cols] bool.

    White inside the picture is a roof or snow; only a collar touches the border.
    """
    return _dilated(_reaching_border(_solid(colour_HW3.min(axis=2) == 255), covered_HW))


def _solid(mask_HW: np.ndarray) -> np.ndarray:
    if not mask_HW.any():
        return mask_HW
    kernel = np.ones((_PATCH_PX, _PATCH_PX), np.uint8)
    return cv2.morphologyEx(mask_HW.astype(np.uint8), cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE) > 0


def _reaching_border(mask_HW: np.ndarray, covered_HW: np.ndarray) -> np.ndarray:
    if not mask_HW.any():
        return mask_HW
    count, label_HW = cv2.connectedComponents(mask_HW.astype(np.uint8))
    border = _dilated(~covered_HW)
    border[[0, -1]], border[:, [0, -1]] = True, True
    reaching = np.zeros(count, bool)
    reaching[label_HW[border]] = True
    reaching[0] = False
    return reaching[label_HW]


def _dilated(mask_HW: np.ndarray) -> np.ndarray:
    if not mask_HW.any():
        return mask_HW.copy()
    size = 2 * _FRINGE_PX + 1
    return cv2.dilate(mask_HW.astype(np.uint8), np.ones((size, size), np.uint8)) > 0


def alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """Number of the band tagged alpha, None without one."""
    tags = dataset.colorinterp
    return tags.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in tags else None


def is_alpha(dataset: rasterio.DatasetReader, band: int) -> bool:
    """Whether a band tagged alpha masks anything: near infrared with a wrong tag takes all values in between.

    Four bands of 8 bits get that tag by default, so a description that names something else decides.
    """
    description = (dataset.descriptions[band - 1] or "").lower()
    if description and not any(word in description for word in ("alpha", "mask", "transparen", "opac")):
        return False
    size = min(dataset.width, _ALPHA_WINDOW), min(dataset.height, _ALPHA_WINDOW)
    corner = (dataset.width - size[0]) // 2, (dataset.height - size[1]) // 2
    values = dataset.read(band, window=Window(*corner, *size))
    partial = (values > 0) & (values < 255)
    return partial.mean() <= _PARTIAL_SHARE or len(np.unique(values[partial])) <= _PARTIAL_VALUES
