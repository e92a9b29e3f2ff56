"""Transforms equal the published ones, can be undone, and are finite for neurons that never fire."""

from pathlib import Path

import numpy as np
import pytest
import torch

from viv1t.data.transforms import Transforms, crop_center
from viv1t.errors import UserError

PARITY = Path(__file__).parent / "data" / "parity" / "data_transform.npz"
WORDS = ("none", "standardise", "minmax")
SILENT = 0  # the neuron without any response


@pytest.fixture(scope="module")
def published():
    with np.load(PARITY) as file:
        return dict(file)


@pytest.fixture(scope="module")
def statistics(published):
    return {
        name: {key: published[f"stat_{stored}_{key}"] for key in ("min", "max", "median", "mean", "std")}
        for name, stored in {
            "video": "video",
            "responses": "response",
            "behavior": "behavior",
            "pupil_center": "pupil_center",
        }.items()
    }


def raw(published, name):
    return torch.from_numpy(published[f"raw_{'response' if name == 'responses' else name}"])


@pytest.mark.parametrize("code", [0, 1, 2])
@pytest.mark.parametrize("name", ["video", "behavior", "pupil_center"])
def test_inputs_equal_the_published_transform_and_come_back(published, statistics, name, code):
    transforms = Transforms(statistics, input=str(code), output="none")
    assert transforms.input == WORDS[code]
    x = raw(published, name)
    transformed = getattr(transforms, name)(x)
    torch.testing.assert_close(transformed, torch.from_numpy(published[f"{name}_transform{code}"]))
    torch.testing.assert_close(getattr(transforms, f"inverse_{name}")(transformed), x, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_responses_equal_the_published_transform_and_come_back(published, statistics, code):
    transforms = Transforms(statistics, output=WORDS[code])
    x = raw(published, "responses")
    transformed = transforms.responses(x)
    firing = slice(None) if code < 2 else slice(SILENT + 1, None)
    expected = torch.from_numpy(published[f"response_transform{code}"])
    torch.testing.assert_close(transformed[firing], expected[firing])
    back = transforms.inverse_responses(transformed)
    torch.testing.assert_close(back[firing], torch.from_numpy(published[f"response_inverse{code}"])[firing])


def test_a_silent_neuron_is_zero_under_minmax(published, statistics):
    assert np.isnan(published["response_transform2"][SILENT]).all()
    transformed = Transforms(statistics, output="minmax").responses(raw(published, "responses"))
    assert (transformed[SILENT] == 0).all()
    assert transformed.isfinite().all()


def test_precision_holds_nearly_silent_neurons_back(published, statistics):
    torch.testing.assert_close(
        Transforms(statistics).precision, torch.from_numpy(published["response_precision"][:, 0])
    )


def test_nothing_that_never_varies_becomes_infinite():
    constant = {key: np.zeros((), np.float32) for key in ("min", "max", "median", "mean", "std")}
    rows = {key: np.zeros(2, np.float32) for key in constant}
    statistics = {"video": constant, "responses": rows, "behavior": rows, "pupil_center": rows}
    for word in WORDS:
        transforms = Transforms(statistics, input=word, output=word)
        for name in ("video", "behavior", "pupil_center", "responses"):
            assert getattr(transforms, name)(torch.zeros(1, 2, 2)).isfinite().all()


def test_leading_axes_and_whole_grey_levels(published, statistics):
    transforms = Transforms(statistics)
    video = torch.randint(0, 256, (3, 1, 5, 36, 64), dtype=torch.uint8)
    torch.testing.assert_close(transforms.video(video)[1], transforms.video(video[1].float()))
    responses = torch.rand(3, len(published["raw_response"]), 7)
    torch.testing.assert_close(transforms.responses(responses)[2], transforms.responses(responses[2]))


def test_selected_neurons_keep_their_transform(published, statistics):
    transforms, neurons = Transforms(statistics), torch.tensor([7, 0, 3])
    x = raw(published, "responses")
    torch.testing.assert_close(transforms.select(neurons).responses(x[neurons]), transforms.responses(x)[neurons])


def test_center_crop_equals_the_published_one(published, statistics):
    fraction = float(published["center_crop"])
    frames = published["video_center_crop"].shape[1]
    transforms = Transforms(statistics, center_crop=fraction)
    cropped = transforms.video(raw(published, "video")[:, :frames])
    torch.testing.assert_close(cropped, torch.from_numpy(published["video_center_crop"]), rtol=1e-5, atol=1e-5)


def test_center_crop_keeps_the_centre_and_drops_the_border():
    video = torch.zeros(1, 36, 64)
    video[:, 9:27, 16:48] = 1
    assert crop_center(video, 0.4).min() > 0.999
    assert crop_center(video, 1.0) is video


def test_center_crop_is_a_fraction(statistics):
    with pytest.raises(UserError, match="center_crop"):
        Transforms(statistics, center_crop=0)
