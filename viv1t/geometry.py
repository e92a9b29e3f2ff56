"""The screen as the mouse sees it: the only place where degrees of visual angle meet pixels.

Pixel (x, y): x is the column to the right, y the row downward, integers at pixel centres.
Azimuth grows to the right and elevation upward, both in degrees, 0 at the screen centre; the eye looks at the
centre of a flat screen from `distance_cm`.
"""

from dataclasses import asdict, dataclass

import numpy as np

from viv1t.constants import HEIGHT, WIDTH


@dataclass(frozen=True)
class Monitor:
    """A flat screen: its size and distance in cm, and the frame shown on it in pixels."""

    width_cm: float
    height_cm: float
    distance_cm: float
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def pitch(self) -> tuple[float, float]:
        """Size of one pixel (horizontal, vertical) in cm."""
        return self.width_cm / self.width, self.height_cm / self.height

    @property
    def centre(self) -> tuple[float, float]:
        """Screen centre (x, y) in pixels; between the two middle pixels of an even size."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    @property
    def degrees_per_pixel(self) -> float:
        """Angle of one pixel at the screen centre (horizontal pitch)."""
        return float(np.degrees(2 * np.arctan(self.pitch[0] / 2 / self.distance_cm)))

    def to_degrees(self, xy: np.ndarray) -> np.ndarray:
        """Pixel positions (..., 2) as (x, y) -> (azimuth, elevation) in degrees."""
        xy = np.asarray(xy, dtype=np.float64)
        right = (xy[..., 0] - self.centre[0]) * self.pitch[0]
        up = (self.centre[1] - xy[..., 1]) * self.pitch[1]
        azimuth = np.arctan2(right, self.distance_cm)
        elevation = np.arctan2(up, np.hypot(right, self.distance_cm))
        return np.degrees(np.stack([azimuth, elevation], axis=-1))

    def to_pixels(self, degrees: np.ndarray) -> np.ndarray:
        """(azimuth, elevation) in degrees (..., 2) -> pixel positions (x, y); the inverse of `to_degrees`."""
        azimuth, elevation = np.moveaxis(np.radians(np.asarray(degrees, dtype=np.float64)), -1, 0)
        right = self.distance_cm * np.tan(azimuth)
        up = np.tan(elevation) * np.hypot(right, self.distance_cm)
        return np.stack([self.centre[0] + right / self.pitch[0], self.centre[1] - up / self.pitch[1]], axis=-1)

    def lines_of_sight(self) -> np.ndarray:
        """Unit vectors (height, width, 3) from the eye to each pixel, as (right, up, forward)."""
        x, y = np.meshgrid(np.arange(self.width), np.arange(self.height))
        right = (x - self.centre[0]) * self.pitch[0]
        up = (self.centre[1] - y) * self.pitch[1]
        sight = np.stack([right, up, np.full_like(right, self.distance_cm)], axis=-1)
        return sight / np.linalg.norm(sight, axis=-1, keepdims=True)

    def to_dict(self) -> dict:
        return asdict(self)


SENSORIUM = Monitor(width_cm=56.5, height_cm=31.8, distance_cm=15.0)
ROCHEFORT = Monitor(width_cm=51.0, height_cm=29.0, distance_cm=20.0)
MONITORS = {"sensorium": SENSORIUM, "rochefort": ROCHEFORT}
