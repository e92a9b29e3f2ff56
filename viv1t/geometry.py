"""The screen as the mouse sees it: the only place where degrees of visual angle meet pixels.

Pixel (x, y): x is the column to the right, y the row downward, integers at pixel centres.
Azimuth grows to the right and elevation upward, both in degrees, 0 at the screen centre; the eye looks at the
centre of a flat screen from `distance_cm`. Directions of motion: 0 left, 90 down, 180 right, 270 up.
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

    def points(self, subpixels: int = 1) -> np.ndarray:
        """Positions (x, y) of points spread evenly over each pixel, (height, width, subpixels**2, 2).

        subpixels: points along each side of a pixel; 1 is its centre.
        """
        offset = (np.arange(subpixels) + 0.5) / subpixels - 0.5
        dx, dy = (grid.ravel() for grid in np.meshgrid(offset, offset))
        x = np.arange(self.width)[None, :, None] + dx
        y = np.arange(self.height)[:, None, None] + dy
        return np.stack(np.broadcast_arrays(x, y), axis=-1)

    def lines_of_sight(self, xy: np.ndarray) -> np.ndarray:
        """Unit vectors (..., 3) from the eye to pixel positions (..., 2), as (right, up, forward)."""
        xy = np.asarray(xy, dtype=np.float64)
        right = (xy[..., 0] - self.centre[0]) * self.pitch[0]
        up = (self.centre[1] - xy[..., 1]) * self.pitch[1]
        sight = np.stack([right, up, np.full_like(right, self.distance_cm)], axis=-1)
        return sight / np.linalg.norm(sight, axis=-1, keepdims=True)

    def solid_angle(self) -> np.ndarray:
        """Solid angle of each pixel relative to one at the screen centre, (height, width)."""
        return self.lines_of_sight(self.points()[:, :, 0])[..., 2] ** 3

    def local_coordinates(self, centres_deg: np.ndarray, subpixels: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Position of every pixel seen from a point of the screen, in degrees along great circles.

        centres_deg (K, 2) as (azimuth, elevation) -> (right, up), each (K, height, width, subpixels**2).
        """
        sight = self.lines_of_sight(self.points(subpixels))
        azimuth, elevation = np.radians(centres_deg).T[:, :, None, None, None]
        forward = np.stack(
            [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        )
        east = np.stack([np.cos(azimuth), np.zeros_like(azimuth), -np.sin(azimuth)])
        north = np.stack(
            [-np.sin(azimuth) * np.sin(elevation), np.cos(elevation), -np.cos(azimuth) * np.sin(elevation)]
        )
        dot = [sum(axis[i] * sight[..., i] for i in range(3)) for axis in (forward, east, north)]
        sine = np.hypot(dot[1], dot[2])
        angle = np.degrees(np.arctan2(sine, dot[0]))
        stretch = np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), np.degrees(1.0))
        return dot[1] * stretch, dot[2] * stretch

    def eccentricity(self, centre: np.ndarray) -> np.ndarray:
        """Angle between every pixel and the pixel position `centre` (x, y), (height, width) in degrees."""
        right, up = self.local_coordinates(self.to_degrees(centre)[None])
        return np.hypot(right, up)[0, :, :, 0]

    def degrees_per_pixel_at(self, xy: np.ndarray) -> np.ndarray:
        """Angles (..., 2) that a pixel at each position (x, y) spans from left to right and from top to bottom."""
        x, y = np.moveaxis(np.asarray(xy, dtype=np.float64), -1, 0)
        right, up = (x - self.centre[0]) * self.pitch[0], (self.centre[1] - y) * self.pitch[1]
        spans = []
        for along, across, pitch in ((right, up, self.pitch[0]), (up, right, self.pitch[1])):
            away = np.hypot(across, self.distance_cm)
            spans.append(np.arctan((along + pitch / 2) / away) - np.arctan((along - pitch / 2) / away))
        return np.degrees(np.stack(spans, axis=-1))

    def radius_px(self, diameter_deg: np.ndarray) -> np.ndarray:
        """Radius in (horizontal) pixels of a disc around the screen centre that spans `diameter_deg`."""
        return self.distance_cm * np.tan(np.radians(diameter_deg) / 2) / self.pitch[0]

    def to_dict(self) -> dict:
        return asdict(self)


def drift_axis(direction_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vector (right, up) of a motion direction: 0 left, 90 down, 180 right, 270 up."""
    angle = np.radians(direction_deg)
    return -np.cos(angle), -np.sin(angle)


SENSORIUM = Monitor(width_cm=56.5, height_cm=31.8, distance_cm=15.0)
ROCHEFORT = Monitor(width_cm=51.0, height_cm=29.0, distance_cm=20.0)
MONITORS = {"sensorium": SENSORIUM, "rochefort": ROCHEFORT}
