"""A streamed twin answers every frame as if it had seen the whole video, forever, in bounded memory."""

import numpy as np
import pytest
import torch
from tiny_twins import NEURONS, tiny_twin

from viv1t.errors import UserError
from viv1t.inference import Twin
from viv1t.model.options import POSITIONS
from viv1t.streaming.state import Stream


def session(frames: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Video (T, 36, 64), behaviour (T, 2) and pupil centre (T, 2)."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (frames, 36, 64)).astype(np.uint8)
    return video, rng.normal([60, 2], [8, 2], (frames, 2)), rng.normal(145, 8, (frames, 2))


def offline(twin: Twin, mouse_id: str, video, behavior=None, pupil_center=None, neurons=None) -> np.ndarray:
    """(N, T) of the whole session at once."""
    batch = (None if x is None else np.ascontiguousarray(x.T)[None] for x in (behavior, pupil_center))
    return twin.respond(mouse_id, video[None, None], *batch, neurons=neurons)[0].numpy()


def streamed(stream: Stream, video, *traces) -> dict[str, np.ndarray]:
    """(N, T) of every mouse, frame by frame."""
    rates = [stream.step(*now) for now in zip(video, *traces, strict=True)]
    return {mouse_id: np.stack([now[mouse_id] for now in rates], axis=1) for mouse_id in stream.mouse_ids}


def same(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    worst = np.abs(ours - theirs).max(axis=0) / np.abs(theirs).max()
    assert (worst <= tolerance).all(), f"frames {np.flatnonzero(~(worst <= tolerance))}: up to {worst.max():.1e}"


EVERY_KIND = (
    *({"core_pos_encoding": code} for code in POSITIONS.words),
    *({"core_pos_encoding": code, "core_reg_tokens": 3, "max_frame": 9} for code in ("rotary", "relative", "learned")),
    *({"core_norm": norm, "core_norm_qk": True} for norm in ("layernorm", "rmsnorm", "dyt")),
    *({"core_behavior_mode": mode, "shifter_mode": "behavior_pupil"} for mode in ("none", "behavior", "additive")),
    {"core_patch_mode": "conv"},
    {"core_patch_mode": "divisive", "core_emb_dim": 28},
    {"core_patch_mode": "energy", "core_patch_init": "gabor", "core_behavior_mode": "additive"},
    {"core_ff_activation": "swiglu", "core_activation": "tanh", "core_flash_attention": 0},
    {"core_spatial_patch_size": 10, "core_spatial_patch_stride": 7, "core_temporal_patch_size": 1},
    {"core_temporal_patch_size": 19, "core_pos_encoding": "learned_relative"},
    {"core_spatial_depth": 0, "core_temporal_depth": 0},
    {"shifter_mode": "none", "readout_grid_mode": "free", "readout_bias_mode": "none"},
    {"output_mode": "softplus"},
    {"output_mode": "sigmoid", "output": "minmax", "center_crop": 0.7},
    {"max_frame": 2, "core_pos_encoding": "learned"},
    {"max_frame": 1},
    {"max_frame": 1, "core_pos_encoding": "relative"},
)


@pytest.mark.parametrize("flags", EVERY_KIND, ids=lambda flags: "-".join(map(str, flags.values())))
def test_every_frame_is_answered_as_in_the_whole_video(flags):
    """Shorter than, as long as, and far longer than what the position code reaches."""
    twin = tiny_twin(**flags)
    inputs = session(41)
    ours = streamed(Stream(twin), *inputs)
    for mouse_id in NEURONS:
        same(ours[mouse_id], offline(twin, mouse_id, *inputs))


@pytest.mark.parametrize("code", ["rotary", "learned", "relative"])
def test_without_padding_the_first_frames_have_no_response(code):
    twin = tiny_twin(core_pad_frame=0, core_spatial_patch_stride=5, core_pos_encoding=code)
    inputs = session(40)
    ours = streamed(Stream(twin, ["A"]), *inputs)["A"]
    assert np.isnan(ours[:, :3]).all()
    same(ours[:, 3:], offline(twin, "A", *inputs))


@pytest.mark.parametrize("code", ["rotary", "relative"])
def test_half_precision_streams_what_it_computes_offline(code):
    twin = tiny_twin(core_pos_encoding=code)
    exact = Stream(twin)
    twin.model.core.autocast_dtype = torch.bfloat16
    half, inputs = Stream(twin), session(30)
    assert half.nbytes < 0.75 * exact.nbytes
    same(streamed(half, *inputs)["B"], offline(twin, "B", *inputs), tolerance=0.02)


def test_frames_may_be_of_any_type_and_behaviour_is_the_mean_if_not_told():
    twin = tiny_twin()
    video, behavior, pupil_center = session(16)
    for frames in (video, video.astype(np.float64), torch.from_numpy(video), video[:, :, ::-1][:, :, ::-1]):
        same(streamed(Stream(twin), frames)["A"], offline(twin, "A", video))
    partly = Stream(twin)
    rates = [partly.step(frame, None, pupil) for frame, pupil in zip(video, pupil_center, strict=True)]
    same(np.stack([r["B"] for r in rates], 1), offline(twin, "B", video, None, pupil_center))


def test_some_neurons_of_some_mice():
    twin, inputs = tiny_twin(), session(20)
    stream = Stream(twin, ["B"], {"B": [4, 0, 0]})
    assert stream.mouse_ids == ("B",) and stream.unit_ids["B"].tolist() == [104, 100, 100]
    same(streamed(stream, *inputs)["B"], offline(twin, "B", *inputs)[[4, 0, 0]])
    none = Stream(twin, neurons={"A": []}).step(inputs[0][0])
    assert none["A"].shape == (0,) and none["B"].shape == (5,)


def test_mice_may_behave_differently():
    twin, (video, *of_a), (_, *of_b) = tiny_twin(), session(30), session(30, seed=2)
    stream = Stream(twin)
    both = [[{"A": a, "B": b} for a, b in zip(*pair, strict=True)] for pair in zip(of_a, of_b, strict=True)]
    ours = streamed(stream, video, *both)
    same(ours["A"], offline(twin, "A", video, *of_a))
    same(ours["B"], offline(twin, "B", video, *of_b))
    only_b = streamed(Stream(twin), video, [{"B": b} for b in of_b[0]], of_b[1])
    same(only_b["A"], offline(twin, "A", video, None, of_b[1]))


def test_through_one_mouses_eyes_the_core_computes_one_input():
    twin, inputs = tiny_twin(core_pos_encoding="relative"), session(30)
    stream = Stream(twin, inputs_of="B")
    ours = streamed(stream, *inputs)
    assert stream.nbytes < 0.6 * Stream(twin).nbytes
    of_b, video = twin.transforms["B"], torch.from_numpy(inputs[0])
    traces = (torch.from_numpy(x.T.astype(np.float32))[None] for x in inputs[1:])
    seen = (of_b.video(video)[None, None], of_b.behavior(next(traces)), of_b.pupil_center(next(traces)))
    for mouse_id in NEURONS:
        with torch.no_grad():
            expected = twin.transforms[mouse_id].inverse_responses(twin.model.predict(mouse_id, *seen))
        same(ours[mouse_id], expected[0].numpy())
    same(streamed(Stream(twin, ["A"], inputs_of="B"), *inputs)["A"], ours["A"])


def test_a_core_that_sees_the_screen_only_computes_each_screen_once():
    flags = {"core_behavior_mode": "none"}
    alike, different = (Stream(tiny_twin(alike=alike, **flags)) for alike in (True, False))
    assert alike.nbytes < 0.6 * different.nbytes
    twin, (video, *of_a), (_, *of_b) = tiny_twin(alike=True, **flags), session(20), session(20, seed=2)
    both = [[{"A": a, "B": b} for a, b in zip(*pair, strict=True)] for pair in zip(of_a, of_b, strict=True)]
    ours = streamed(Stream(twin), video, *both)
    same(ours["A"], offline(twin, "A", video, *of_a))
    same(ours["B"], offline(twin, "B", video, *of_b))


@pytest.mark.parametrize("code", ["rotary", "relative"])
def test_a_reset_starts_a_new_session(code):
    stream, inputs = Stream(tiny_twin(core_pos_encoding=code)), session(31)
    first = streamed(stream, *inputs)
    assert stream.frames == 31
    stream.reset()
    assert stream.frames == 0
    again = streamed(stream, *inputs)
    assert all(np.array_equal(first[mouse_id], again[mouse_id]) for mouse_id in NEURONS)


@pytest.mark.parametrize("code", ["rotary", "relative"])
def test_the_state_does_not_grow(code):
    stream, (video, *_) = Stream(tiny_twin(core_pos_encoding=code)), session(10)
    sizes = set()
    for t in range(60):
        stream.step(video[t % 10])
        held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors(stream)}
        sizes.add((stream.nbytes, sum(held.values())))
    assert len(sizes) == 1 and 0 < stream.nbytes <= sizes.pop()[1]


def tensors(thing, seen=None):
    """All tensors that an object holds, however deep."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict):
        yield from (x for value in thing.values() for x in tensors(value, seen))
    elif isinstance(thing, list | tuple):
        yield from (x for value in thing for x in tensors(value, seen))
    elif hasattr(thing, "__dict__"):
        yield from tensors(vars(thing), seen)


BLACK = np.zeros((36, 64), np.uint8)
BAD = {
    "a frame of another size": (BLACK.T,),
    "a batch of frames": (BLACK[None],),
    "words": ("frame",),
    "nothing": (None,),
    "a pixel that is not a number": (np.where(np.eye(36, 64) > 0, np.nan, 0.0),),
    "a pixel beyond float32": (np.full((36, 64), 1e300),),
    "three traces": (BLACK, [1, 2, 3]),
    "infinite running": (BLACK, [50, np.inf]),
    "no gaze": (BLACK, None, [np.nan, np.nan]),
    "one mouse's gaze": (BLACK, None, {"A": [1, 2], "B": [np.nan, 1]}),
    "a mouse that is not there": (BLACK, {"Z": [1, 2]}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_frame_is_refused_and_forgotten(bad):
    twin, inputs = tiny_twin(), session(30)
    stream = Stream(twin)
    rates = []
    for now in zip(*inputs, strict=True):
        with pytest.raises(ValueError):
            stream.step(*bad)
        rates.append(stream.step(*now)["A"])
    assert stream.frames == 30
    same(np.stack(rates, axis=1), offline(twin, "A", *inputs))


def test_what_cannot_be_streamed_is_told():
    with pytest.raises(UserError, match="--core_use_causal_attention"):
        Stream(tiny_twin(core_use_causal_attention=False))
    with pytest.raises(UserError, match="--core_temporal_patch_stride"):
        Stream(tiny_twin(core_temporal_patch_stride=2))
    twin = tiny_twin()
    for arguments, told in (
        ({"mouse_ids": ["Z"]}, "whose mice are A, B"),
        ({"mouse_ids": []}, "no mouse"),
        ({"inputs_of": "Z"}, "whose mice are A, B"),
        ({"mouse_ids": ["A"], "neurons": {"B": [0]}}, "neurons of mouse B"),
        ({"neurons": {"B": [5]}}, "0 to 4"),
        ({"neurons": {"B": [-1]}}, "0 to 4"),
        ({"neurons": {"B": [0.5]}}, "indices"),
    ):
        with pytest.raises(UserError, match=told):
            Stream(twin, **arguments)


def test_a_twin_can_still_be_differentiated_after_it_was_streamed():
    twin = tiny_twin(core_pos_encoding="relative")
    streamed(Stream(twin), *session(3))
    video = torch.rand(1, 1, 1, 36, 64).mul_(255).requires_grad_()
    twin.respond("A", video).sum().backward()
    assert video.grad.abs().sum() > 0
