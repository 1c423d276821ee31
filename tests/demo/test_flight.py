"""Flight lines and the ranges of the simulated views around them."""

import numpy as np
import pytest

from datagen.demo.flight import lawn_mower, sim_presets
from datagen.demo.settings import FlightSettings, SimViewSettings, WorldSettings

WORLD, VIEWS = WorldSettings(), SimViewSettings()
GROUND = 482.0


def fly(flight=FlightSettings(), photos=100, seed=0):
    return lawn_mower(flight, WORLD, GROUND, photos, np.random.default_rng(seed))


def test_flight_stays_over_the_scene_at_its_height():
    stations = fly()
    assert stations.position_N3.shape == stations.yaw_pitch_roll_N3.shape == (100, 3)
    offset = stations.position_N3[:, :2] - (WORLD.west_m, WORLD.south_m)
    assert offset.min() > 0.2 * WORLD.extent_m and offset.max() < 0.8 * WORLD.extent_m
    above = stations.position_N3[:, 2] - GROUND
    assert np.abs(above / FlightSettings().height_m - 1).max() <= FlightSettings().height_jitter


def test_camera_looks_along_the_track():
    stations = fly(FlightSettings(headings_deg=(90.0, 270.0), position_std_m=0.0, num_lines=4), photos=40)
    for line in range(4):
        xy = stations.position_N3[10 * line : 10 * line + 10, :2]
        step = xy[-1] - xy[0]
        heading = np.degrees(np.arctan2(step[0], step[1])) % 360
        yaw = stations.yaw_pitch_roll_N3[10 * line : 10 * line + 10, 0]
        assert np.abs((yaw - heading + 180) % 360 - 180).max() < 10
        steps = np.diff(xy @ (step / np.linalg.norm(step)))
        assert np.allclose(steps, steps[0])


def test_both_headings_get_both_pitches():
    flight = FlightSettings(headings_deg=(90.0, 270.0), yaw_std_deg=0.0, pitch_std_deg=0.0)
    angles = fly(flight).yaw_pitch_roll_N3
    assert {(yaw, pitch) for yaw, pitch, _ in angles} == {(h, p) for h in flight.headings_deg for p in flight.pitches_deg}


@pytest.mark.parametrize("headings", [(90.0, 270.0), (0.0,), (30.0, 120.0, 210.0, 300.0)])
@pytest.mark.parametrize("photos", [5, 8, 61])
def test_any_number_of_photos_and_headings(headings, photos):
    assert len(fly(FlightSettings(headings_deg=headings), photos).position_N3) == photos


def test_simulated_views_cover_the_flight():
    flight = FlightSettings(headings_deg=(90.0, 270.0))
    presets = {
        preset["yawRange"][0] + VIEWS.yaw_margin_deg: preset for preset in sim_presets(flight, VIEWS, WORLD, GROUND, 901)
    }
    assert set(presets) == set(flight.headings_deg)
    assert sorted(preset["nbImages"] for preset in presets.values()) == [450, 451]
    stations = fly(flight, photos=400)
    for position, angles in zip(stations.position_N3, stations.yaw_pitch_roll_N3):
        preset = presets[min(presets, key=lambda heading: abs(heading - angles[0]))]
        names = ("xRange", "yRange", "hRange", "yawRange", "pitchRange", "rollRange")
        for name, value in zip(names, (*position, *angles)):
            low, high = preset[name]
            assert low <= value <= high, (name, value)


def test_no_photo_is_an_error():
    with pytest.raises(ValueError, match="at least 1 photo"):
        fly(photos=0)
