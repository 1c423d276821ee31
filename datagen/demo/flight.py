"""The drone's lawn-mower flight over the demo scene, and the ranges of the simulated views around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datagen.demo.settings import FlightSettings, SimViewSettings, WorldSettings


@dataclass(frozen=True)
class Attitudes:
    """Camera stations: positions [N, 3] in the scene's CRS, yaw, pitch, roll [N, 3] in degrees."""

    position_N3: np.ndarray
    yaw_pitch_roll_N3: np.ndarray


def lawn_mower(
    flight: FlightSettings, world: WorldSettings, ground_m: float, num_photos: int, rng: np.random.Generator
) -> Attitudes:
    """Photo stations along parallel lines over the middle of the scene, camera looking along the track.

    Line i takes heading i (cyclic) and the pitch after every round of headings. Lines run along their heading, spread
    across it.

    Args:
        ground_m: terrain level that flying heights count from, in the CRS' height.
        num_photos: spread evenly over the lines, the first lines take the rest.
    """
    if num_photos < 1:
        raise ValueError(f"a flight needs at least 1 photo, got {num_photos}")
    num_lines = min(flight.num_lines, num_photos)
    counts = [num_photos // num_lines + (i < num_photos % num_lines) for i in range(num_lines)]
    middle = np.array([world.west_m, world.south_m]) + 0.5 * world.extent_m
    half = 0.5 * flight.span * world.extent_m
    positions, attitudes = [], []
    for line, count in enumerate(counts):
        heading = flight.headings_deg[line % len(flight.headings_deg)]
        pitch = flight.pitches_deg[line // len(flight.headings_deg) % len(flight.pitches_deg)]
        along = np.array([np.sin(np.radians(heading)), np.cos(np.radians(heading))])
        # lines lie side by side from north-west to south-east whichever way they are flown
        across = np.array([abs(along[1]), -abs(along[0])])
        offset = half * (2.0 * (line + 0.5) / num_lines - 1.0)
        station = half * (2.0 * (np.arange(count) + 0.5) / count - 1.0)
        xy = middle + station[:, None] * along + offset * across
        height = ground_m + flight.height_m * (1.0 + flight.height_jitter * rng.uniform(-1.0, 1.0, count))
        wander = flight.position_std_m * rng.standard_normal((count, 2))
        positions.append(np.c_[xy + wander, height])
        stds = (flight.yaw_std_deg, flight.pitch_std_deg, flight.roll_std_deg)
        attitudes.append(np.array([heading, pitch, 0.0]) + np.clip(rng.standard_normal((count, 3)), -2.5, 2.5) * stds)
    return Attitudes(np.concatenate(positions), np.concatenate(attitudes))


def sim_presets(
    flight: FlightSettings, views: SimViewSettings, world: WorldSettings, ground_m: float, num_images: int
) -> list[dict]:
    """Latin-hypercube presets around the flight, one for each heading; heights are in the CRS' height."""
    headings = flight.headings_deg
    x_mid, y_mid = world.west_m + 0.5 * world.extent_m, world.south_m + 0.5 * world.extent_m
    half = 0.5 * flight.span * world.extent_m + views.margin_m
    spread = flight.height_m * max(views.height_margin, flight.height_jitter)
    pitches = flight.pitches_deg
    presets = []
    for i, heading in enumerate(headings):
        presets.append(
            {
                "nbImages": num_images // len(headings) + (i < num_images % len(headings)),
                "xRange": [x_mid - half, x_mid + half],
                "yRange": [y_mid - half, y_mid + half],
                "heightReference": "ellipsoid",
                "hRange": [ground_m + flight.height_m - spread, ground_m + flight.height_m + spread],
                "yawRange": [heading - views.yaw_margin_deg, heading + views.yaw_margin_deg],
                "pitchRange": [min(pitches) - views.pitch_margin_deg, max(pitches) + views.pitch_margin_deg],
                "rollRange": [-views.roll_margin_deg, views.roll_margin_deg],
            }
        )
    return presets
