"""Every number of the demo scene that one may want to tune, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

# LAS codes the landscape is made of (sky, code 0, is where rays miss the terrain).
UNCLASSIFIED, GROUND, VEGETATION, BUILDING, WATER, BRIDGE = 1, 2, 3, 6, 9, 17


@dataclass(frozen=True)
class WorldSettings:
    """The landscape and its rasters; lengths in metres.

    The orthophoto has pixels of `texel_m`; surface and land cover have cells of `texel_m * surface_factor`, an odd
    factor so that every surface cell's centre is the centre of an orthophoto pixel.
    """

    extent_m: float = 405.0
    texel_m: float = 0.15
    surface_factor: int = 3
    crs: str = "EPSG:32632"
    west_m: float = 351_000.0
    south_m: float = 5_136_800.0
    datum_m: float = 480.0
    relief_m: float = 9.0

    def __post_init__(self) -> None:
        if self.surface_factor < 1 or self.surface_factor % 2 == 0:
            raise ValueError(f"surface_factor must be odd and positive, got {self.surface_factor}")
        cells = self.extent_m / (self.texel_m * self.surface_factor)
        if abs(cells - round(cells)) > 1e-6 or cells < 32:
            raise ValueError(
                f"extent {self.extent_m} m must be a whole number (at least 32) of surface cells of "
                f"{self.texel_m * self.surface_factor} m"
            )

    @property
    def size_px(self) -> int:
        """Side of the orthophoto in pixels."""
        return round(self.extent_m / (self.texel_m * self.surface_factor)) * self.surface_factor


@dataclass(frozen=True)
class Season:
    """Light and growth of one version of the world; `autumn` 0 is summer, 1 is full autumn."""

    autumn: float
    sun_azimuth_deg: float
    sun_elevation_deg: float
    shadow_strength: float
    sun_tint: tuple[float, float, float]
    growth: float
    moved_cars: float

    def towards(self, other: Season, share: float) -> Season:
        """The season `share` of the way to another one (0: this one, 1: the other, above 1: beyond)."""

        def mix(a: float, b: float) -> float:
            return a + share * (b - a)

        return Season(
            autumn=mix(self.autumn, other.autumn),
            sun_azimuth_deg=mix(self.sun_azimuth_deg, other.sun_azimuth_deg),
            sun_elevation_deg=max(mix(self.sun_elevation_deg, other.sun_elevation_deg), 22.0),
            shadow_strength=min(max(mix(self.shadow_strength, other.shadow_strength), 0.0), 0.8),
            sun_tint=tuple(mix(a, b) for a, b in zip(self.sun_tint, other.sun_tint)),
            growth=mix(self.growth, other.growth),
            moved_cars=min(max(mix(self.moved_cars, other.moved_cars), 0.0), 1.0),
        )


SURVEYED = Season(
    autumn=0.0, sun_azimuth_deg=165.0, sun_elevation_deg=58.0, shadow_strength=0.45,
    sun_tint=(1.0, 1.0, 1.0), growth=0.0, moved_cars=0.0,
)  # fmt: skip
FLOWN = Season(
    autumn=1.0, sun_azimuth_deg=248.0, sun_elevation_deg=33.0, shadow_strength=0.70,
    sun_tint=(1.10, 1.0, 0.84), growth=0.15, moved_cars=1.0,
)  # fmt: skip


@dataclass(frozen=True)
class CameraEffects:
    """What the drone's camera does to an image; sizes are for strength 1 and scale with the gap."""

    blur_px: float = 0.55
    motion_px: float = 1.0
    vignetting: float = 0.28
    exposure_std: float = 0.10
    white_balance_std: float = 0.04
    contrast: float = 0.12
    haze: float = 0.06
    shot_noise: float = 0.020
    read_noise: float = 0.008
    jpeg_quality: int = 82


@dataclass(frozen=True)
class FlightSettings:
    """Parallel flight lines over the middle of the scene, camera looking along the track.

    One heading means that every line is flown in the same direction; give two opposite ones for a lawn mower.

    Pitch is the optical axis' elevation: -90 looks straight down, 0 at the horizon. Yaw is clockwise from north.
    Heights are above the scene's mean terrain level, as a drone holds its height above the take-off point.
    """

    height_m: float = 110.0
    height_jitter: float = 0.04
    headings_deg: tuple[float, ...] = (90.0,)
    pitches_deg: tuple[float, ...] = (-80.0, -70.0)
    span: float = 0.28
    num_lines: int = 8
    yaw_std_deg: float = 3.0
    pitch_std_deg: float = 2.0
    roll_std_deg: float = 1.5
    position_std_m: float = 1.5


@dataclass(frozen=True)
class SimViewSettings:
    """How far the Latin-hypercube views reach beyond the flight; views that see less terrain are drawn again."""

    margin_m: float = 8.0
    height_margin: float = 0.06
    yaw_margin_deg: float = 10.0
    pitch_margin_deg: float = 5.0
    roll_margin_deg: float = 4.0
    min_valid: float = 0.7


@dataclass(frozen=True)
class DemoSettings:
    """The whole demo scene.

    `gap` scales everything that differs between `sim` and `real`: 0 is nothing, 1 the full step from SURVEYED to FLOWN
    with all of the camera's effects. The default leaves a network that only knows the simulated views several times
    worse on the photos than on such views.
    """

    scene: str = "demo"
    seed: int = 2021
    num_images: int = 900
    num_photos: int = 100
    width: int = 360
    height: int = 240
    focal_px: float = 240.0
    gap: float = 0.9
    world: WorldSettings = field(default_factory=WorldSettings)
    flight: FlightSettings = field(default_factory=FlightSettings)
    views: SimViewSettings = field(default_factory=SimViewSettings)
    effects: CameraEffects = field(default_factory=CameraEffects)
    surveyed: Season = SURVEYED
    flown: Season = FLOWN

    @property
    def flown_season(self) -> Season:
        """The season of the 'real' photos at this gap."""
        return self.surveyed.towards(self.flown, self.gap)
