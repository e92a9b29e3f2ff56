"""Gratings in a disc and around it: what is shown to ask how the surround of a receptive field changes its answer."""

import numpy as np

from viv1t.geometry import Monitor
from viv1t.stimulus.gratings import grating
from viv1t.stimulus.windows import centre_surround, disc

# kind -> whether the disc shows the grating, and what surrounds it: (factor, turn in degrees) or nothing
KINDS = {
    "centre": (True, None),  # classical: grey around
    "iso": (True, (1, 0)),  # the same grating everywhere: no border is visible, whatever the disc's size
    "cross": (True, (1, 90)),  # turned by 90 degrees
    "shift": (True, (-1, 0)),  # half a cycle ahead
    "inverse": (False, (1, 0)),  # a grey disc: surround alone
    "inverse_cross": (False, (1, 90)),
}


def context(
    monitor: Monitor,
    centre,
    kind: str,
    size_deg: float,
    direction_deg: float,
    sf_cpd: float,
    tf_hz: float,
    frames: int,
    phase_deg: float = 0.0,
    contrast: float = 1.0,
    outer_deg: float | None = None,
    gap_deg: float = 0.0,
    side: float = 1.0,
) -> np.ndarray:
    """Contrast (frames, H, W) float32 of a disc of diameter `size_deg` on pixel `centre` and its surround (KINDS).

    direction_deg: of the drift in the disc; the surround's is turned against it. The surround begins `gap_deg` outside
    the disc and fills the screen, or a larger disc of diameter `outer_deg`. Size 0: surround only. side: 1 or -1, to
    which side a cross surround is turned; its orientation is the same, its drift is the opposite.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    shows_centre, around = KINDS[kind]

    def drifting(turn: float, factor: float = 1.0) -> np.ndarray:
        return grating(
            monitor, direction_deg + side * turn, sf_cpd, tf_hz, frames, phase_deg, factor * contrast, centre
        )

    nothing = np.zeros((1, 1, 1), np.float32)
    inside = drifting(0) if shows_centre else nothing
    if around is None:
        return centre_surround(inside, nothing, disc(monitor, centre, size_deg))
    factor, turn = around
    outside = drifting(turn, factor)
    if shows_centre and around == (1, 0) and gap_deg == 0 and outer_deg is None:
        return inside
    ring = _ring(monitor, centre, size_deg + 2 * gap_deg, outer_deg)
    return centre_surround(inside, outside, disc(monitor, centre, size_deg), ring)


def _ring(monitor: Monitor, centre, inner_deg: float, outer_deg: float | None) -> np.ndarray:
    end = 1.0 if outer_deg is None else disc(monitor, centre, outer_deg)
    return end - disc(monitor, centre, inner_deg)
