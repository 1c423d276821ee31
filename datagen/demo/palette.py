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
ROWS_SUMMER = np.array([.04, .07, .14, .12, .05, .13, .15, .10, .22], dtype=np.float32)
ROWS_AUTUMN = np.array([.04, .13, .09, .08, .11, .06, .12, .05, .20], dtype=np.float32)

ROOFS = _table([(.66, .37, .26), (.34, .36, .41), (.49, .35, .28), (.79, .79, .77), (.71, .31, .24)])
WALL = _table([(.80, .76, .68)])[0]
SOLAR = _table([(.13, .16, .27)])[0]
CARS = _table([(.88, .88, .88), (.10, .10, .12), (.68, .12, .10), (.14, .26, .58), (.60, .62, .64), (.85, .68, .16)])

ROAD_SUMMER = {"main": _table([(.47, .47, .48)])[0], "lane": _table([(.56, .55, .53)])[0], "track": _table([(.68, .60, .46)])[0]}
ROAD_AUTUMN = {"main": _table([(.39, .39, .42)])[0], "lane": _table([(.46, .44, .43)])[0], "track": _table([(.52, .43, .33)])[0]}
CONCRETE = _table([(.70, .69, .66)])[0]
GRAVEL = _table([(.66, .63, .57)])[0]
LAWN_SUMMER, LAWN_AUTUMN = _table([(.38, .49, .22), (.42, .43, .24)])
BANK_SUMMER, BANK_AUTUMN = _table([(.45, .50, .27), (.50, .44, .27)])
WATER_SUMMER, WATER_AUTUMN = _table([(.17, .29, .31), (.25, .28, .24)])
TREE_SUMMER = _table([(.21, .34, .15)])[0]
# trees turn by their own tint: still green, yellow, orange, red-brown
TREE_AUTUMN = _table([(.30, .36, .17), (.60, .50, .19), (.62, .39, .15), (.46, .25, .15)])


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
