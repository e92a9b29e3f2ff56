"""Visual patterns, as pure functions of their parameters.

Every pattern takes the monitor first and returns contrast: float32 (frames, H, W), 0 the grey background, -1 black and
1 white, so that patterns can be masked, scaled and added. `levels.grey_levels` is what a screen shows of it.
Positions are pixels (x, y), sizes and frequencies are per degree of visual angle, times are frames of `constants.FPS`.
Directions of motion: 0 left, 90 down, 180 right, 270 up.
"""
