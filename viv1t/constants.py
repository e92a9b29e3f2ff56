"""Facts of the recordings that every part shares."""

FPS = 30  # video and responses, frames per second
HEIGHT, WIDTH = 36, 64  # frame size in pixels
TRIAL_FRAMES = 300  # 10 s; longer trials are cut to their first 300 frames in training
SKIP = 50  # frames at the start of a trial that no score uses
GREY = 127  # background level of a blank screen, 0..255
EPSILON = 1.1920929e-07  # float32 machine epsilon, as in the published transforms and losses

# tier on disk -> the name used everywhere else; "none" marks unusable trials
TIERS = {
    "train": "train",
    "oracle": "validation",
    "live_test_main": "live_main",
    "live_test_bonus": "live_bonus",
    "final_test_main": "final_main",
    "final_test_bonus": "final_bonus",
    "none": "none",
}
TEST_TIERS = ("live_main", "live_bonus", "final_main", "final_bonus")

# stimulus id = position in this tuple
STIMULI = ("movie", "pink_noise", "gaussian_dots", "random_dots", "drifting_gabor", "image")
