"""Colours of the landscape in summer and in autumn, RGB in 0..1."""

from __future__ import annotations

import numpy as np


def _table(rows: list[tuple[float, float, float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


# meadow, wheat, maize, bare soil, mustard, phacelia, beet, hay, vineyard
PARCEL_SUMMER = _table([(.40, .50, .23), (.77, .68, .40), (.29, .43, .18), (.55, .44, .34), (.76, .71, .27),
                        (.49, .45, .51), (.25, .38, .20), (.62, .61, .37), (.48, .49, .31)])  # fmt: skip
PARCEL_AUTUMN = _table([(.44, .46, .25), (.50, .41, .31), (.63, .54, .34), (.40, .45, .25), (.58, .51, .37),
                        (.52, .46, .38), (.47, .38, .28), (.38, .46, .23), (.66, .49, .24)])  # fmt: skip
# strength of the rows (plough, seed drill, vines) in either season
ROWS_SUMMER = np.array([0.04, 0.07, 0.14, 0.12, 0.05, 0.13, 0.15, 0.10, 0.22], dtype=np.float32)
ROWS_AUTUMN = np.array([0.04, 0.13, 0.09, 0.08, 0.11, 0.06, 0.12, 0.05, 0.20], dtype=np.float32)

ROOFS = _table([(0.66, 0.37, 0.26), (0.34, 0.36, 0.41), (0.49, 0.35, 0.28), (0.79, 0.79, 0.77), (0.71, 0.31, 0.24)])
WALL = _table([(0.80, 0.76, 0.68)])[0]
SOLAR = _table([(0.13, 0.16, 0.27)])[0]
CARS = _table(
    [(0.88, 0.88, 0.88), (0.10, 0.10, 0.12), (0.68, 0.12, 0.10), (0.14, 0.26, 0.58), (0.60, 0.62, 0.64), (0.85, 0.68, 0.16)]
)

ROAD_SUMMER = {
    "main": _table([(0.47, 0.47, 0.48)])[0],
    "lane": _table([(0.56, 0.55, 0.53)])[0],
    "track": _table([(0.68, 0.60, 0.46)])[0],
}
ROAD_AUTUMN = {
    "main": _table([(0.39, 0.39, 0.42)])[0],
    "lane": _table([(0.46, 0.44, 0.43)])[0],
    "track": _table([(0.52, 0.43, 0.33)])[0],
}
CONCRETE = _table([(0.70, 0.69, 0.66)])[0]
GRAVEL = _table([(0.66, 0.63, 0.57)])[0]
LAWN_SUMMER, LAWN_AUTUMN = _table([(0.38, 0.49, 0.22), (0.42, 0.43, 0.24)])
BANK_SUMMER, BANK_AUTUMN = _table([(0.45, 0.50, 0.27), (0.50, 0.44, 0.27)])
WATER_SUMMER, WATER_AUTUMN = _table([(0.17, 0.29, 0.31), (0.25, 0.28, 0.24)])
TREE_SUMMER = _table([(0.21, 0.34, 0.15)])[0]
# trees turn by their own tint: still green, yellow, orange, red-brown
TREE_AUTUMN = _table([(0.30, 0.36, 0.17), (0.60, 0.50, 0.19), (0.62, 0.39, 0.15), (0.46, 0.25, 0.15)])


def blend(summer: np.ndarray, autumn: np.ndarray, share: float) -> np.ndarray:
    """Colour (or strength) `share` of the way from summer to autumn, kept in 0..1."""
    return np.clip(summer + share * (autumn - summer), 0.0, 1.0)


def tree_colours(tints_N: np.ndarray, autumn: float) -> np.ndarray:
    """Crown colour of each tree [N, 3] from its tint (about -3..3)."""
    summer_N3 = TREE_SUMMER + tints_N[:, None] * np.array([0.022, 0.030, 0.012])
    place_N = np.clip((tints_N + 1.6) / 3.2, 0.0, 0.999) * (len(TREE_AUTUMN) - 1)
    low_N = place_N.astype(int)
    part_N1 = (place_N - low_N)[:, None]
    autumn_N3 = TREE_AUTUMN[low_N] * (1 - part_N1) + TREE_AUTUMN[low_N + 1] * part_N1
    return blend(summer_N3, autumn_N3, autumn).astype(np.float32)
