"""What the door lets in (every variant of the layout), and what it turns away: one line that names file and cure."""

import json

import numpy as np
import pytest

from viv1t.constants import FPS
from viv1t.data.mice import KNOWN, find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.geometry import ROCHEFORT, SENSORIUM


def spoil(folder, name, change):
    """Replace an array file by what `change` makes of it."""
    path = folder / name
    np.save(path, change(np.load(path)))
    return path


def refusal(folder, trial=None) -> str:
    """The one line with which a recording (or one of its trials) is refused, leaving the folder as it was."""
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    with pytest.raises(UserError) as refused:
        recording = Recording(folder)
        for number in recording.usable if trial is None else [trial]:
            recording.trial(number)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    assert "\n" not in str(refused.value)
    return str(refused.value)


def first_trial(folder, tier="train"):
    return int(Recording(folder).trial_ids(tier)[0])


def test_padded_and_compact_files_hold_the_same_trials(make_recording):
    compact, padded = Recording(make_recording("a", seed=3)), Recording(make_recording("b", seed=3, padded=True))
    assert np.load(padded.path("videos", 0)).shape == (36, 64, 324)
    for trial in compact.usable:
        a, b = compact.trial(trial), padded.trial(trial)
        assert a.frames == b.frames == compact.frames(trial)
        assert a.video.shape == (a.frames, 36, 64) and a.behavior.shape == a.pupil_center.shape == (2, a.frames)
        for name in ("video", "responses", "behavior", "pupil_center"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None)
            if x is not None:
                assert x.dtype == y.dtype == np.float32
                np.testing.assert_allclose(x, y, rtol=1e-6)


def test_tiers_have_their_common_names(make_recording):
    recording = Recording(make_recording())
    assert set(recording.tiers) == {
        *("train", "validation", "live_main", "live_bonus", "final_main", "final_bonus", "none")
    }
    assert np.array_equal(recording.trial_ids("oracle"), recording.trial_ids("validation"))
    with pytest.raises(UserError, match="did you mean 'validation'"):
        recording.trial_ids("validatoin")


def test_short_tier_names_are_not_truncated(make_recording):
    folder = make_recording(withheld=())
    spoil(folder, "meta/trials/tiers.npy", lambda tiers: np.where(tiers == "train", "train", "oracle").astype("U6"))
    assert set(Recording(folder).tiers) == {"train", "validation"}


def test_trial_ends_where_the_first_modality_ends(make_recording):
    folder = make_recording(padded=True)
    trial = first_trial(folder)
    frames = Recording(folder).frames(trial)

    def shorten(array):
        array[:, frames - 7 :] = np.nan
        return array

    spoil(folder, f"data/pupil_center/{trial}.npy", shorten)
    assert Recording(folder).trial(trial).frames == frames - 7


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_withheld_responses_are_found_trial_by_trial(make_recording, value):
    folder = make_recording(padded=True, withheld=())
    trial = first_trial(folder, "live_main")
    spoil(folder, f"data/responses/{trial}.npy", lambda array: np.full_like(array, value))
    recording = Recording(folder)
    withheld = [t for t in recording.trial_ids("live_main") if recording.trial(t).responses is None]
    assert withheld == [trial]


def test_neurons_lost_in_a_later_session_are_nan_rows(make_recording):
    recording = Recording(make_recording(unmatched=(0, 3)))
    assert np.flatnonzero(~recording.matched).tolist() == [0, 3]
    responses = recording.trial(recording.trial_ids("train")[0]).responses
    assert np.isnan(responses[[0, 3]]).all() and np.isfinite(np.delete(responses, [0, 3], axis=0)).all()


def test_a_neuron_cannot_come_and_go(make_recording):
    """NaN in one trial but not in another is a fault, not a neuron that was lost."""
    folder = make_recording()
    trials = Recording(folder).usable
    spoil(folder, f"data/responses/{trials[0]}.npy", put(np.nan, 2, ALL))
    assert "neuron 2" in refusal(folder)


def test_monitor_comes_from_the_recording_or_from_its_lab(make_recording, capsys):
    folder = make_recording(frame_size=(18, 32))
    assert Recording(folder).monitor is None and "monitor" in capsys.readouterr().out
    values = {"width_cm": 40.0, "height_cm": 20.0, "distance_cm": 12.0, "fps": 25}
    (folder / "meta" / "monitor.json").write_text(json.dumps(values))
    recording = Recording(folder)
    assert (recording.monitor.height, recording.monitor.width) == (18, 32)
    assert (recording.monitor.width_cm, recording.monitor.distance_cm, recording.fps) == (40.0, 12.0, 25)
    for lab, monitor in (("sensorium", SENSORIUM), ("rochefort-lab", ROCHEFORT)):
        assert Recording(make_recording(f"../{lab}/mouse")).monitor == monitor
    assert Recording(make_recording("other")).fps == FPS


def test_given_ids_are_used(make_recording):
    folder = make_recording()
    given = np.arange(len(np.load(folder / "meta/trials/tiers.npy"))) % 3
    np.save(folder / "meta/trials/video_ids.npy", given)
    recording = Recording(folder)
    assert np.array_equal(recording.video_ids[recording.usable], given[recording.usable])
    assert (recording.video_ids[recording.tiers == "none"] == -1).all()


def test_truth_of_simulated_recordings(make_recording):
    recording = Recording(make_recording())
    assert recording.truth_rates(0) is None
    path = recording.directory / "truth" / "rates" / "0.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.ones((8, 324), np.float16))
    if recording.tiers[0] != "none":
        assert recording.truth_rates(0).shape == (8, recording.frames(0))


def put(value, neurons, frames):
    """Change that overwrites some entries of a (rows, frames) array."""

    def change(array):
        array[neurons, frames] = value
        return array

    return change


ALL, LAST_TWO = slice(None), slice(-2, None)
SPOILT_ARRAYS = {
    "another neuron count": ("data/responses/{}.npy", lambda x: x[:-1], "as many neurons as coordinates"),
    "another frame size": ("data/videos/{}.npy", lambda x: x[:20], "frame size"),
    "swapped axes": ("data/behavior/{}.npy", lambda x: x.T, "expected (2, frames)"),
    "no frames": ("data/behavior/{}.npy", lambda x: x[:, :0], "expected"),
    "complex numbers": ("data/pupil_center/{}.npy", lambda x: x.astype(complex), "complex"),
    "text": ("data/pupil_center/{}.npy", lambda x: x.astype(str), "expected real numbers"),
    "infinity": ("data/responses/{}.npy", put(np.inf, ALL, 9), "frame 9"),
    "a gap": ("data/behavior/{}.npy", put(np.nan, ALL, 5), "frame 5"),
    "a gap in one row": ("data/behavior/{}.npy", put(np.nan, 1, 5), "frame 5"),
    "one NaN": ("data/responses/{}.npy", put(np.nan, 0, 0), "frame 0"),
    "only NaN": ("data/responses/{}.npy", put(np.nan, ALL, ALL), "holds no valid frame"),
    "a neuron that ends early": ("data/responses/{}.npy", put(np.nan, 0, LAST_TWO), "not finite"),
    "another neuron that ends early": ("data/responses/{}.npy", put(np.nan, 5, LAST_TWO), "not finite"),
}


@pytest.mark.parametrize("case", SPOILT_ARRAYS)
def test_a_spoilt_trial_is_refused_by_name(make_recording, case):
    folder = make_recording(seed=4)
    name, change, expected = SPOILT_ARRAYS[case]
    trial = int(Recording(folder).trial_ids("train")[-1])
    path = spoil(folder, name.format(trial), change)
    message = refusal(folder)
    assert str(path) in message and expected in message


def test_damaged_files_are_refused_by_name(make_recording):
    folder = make_recording()
    trial = first_trial(folder)
    path = folder / f"data/videos/{trial}.npy"
    whole = path.read_bytes()
    for damaged, expected in (
        (whole[:-100], "truncated"),
        (whole[:40], "cut off"),
        (b"", "cut off"),
        (b"<html>" * 99, "not a .npy"),
    ):
        path.write_bytes(damaged)
        message = refusal(folder)
        assert str(path) in message and expected in message and "again" in message


def test_other_files_under_the_names_of_arrays_are_refused(make_recording):
    folder = make_recording()
    trial = first_trial(folder)
    for name in ("meta/trials/tiers.npy", "meta/neurons/unit_ids.npy", f"data/behavior/{trial}.npy"):
        whole = (folder / name).read_bytes()
        with open(folder / name, "wb") as file:
            np.savez(file, a=np.ones(3))
        assert name in refusal(folder)
        np.save(folder / name, np.array(1.0))
        assert name in refusal(folder)
        (folder / name).write_bytes(whole)
    Recording(folder)


def test_objects_are_never_unpickled(make_recording):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a file was unpickled",))

    folder = make_recording()
    for name in (f"data/responses/{first_trial(folder)}.npy", "meta/trials/tiers.npy"):
        whole = (folder / name).read_bytes()
        np.save(folder / name, np.array([Bomb()], dtype=object), allow_pickle=True)
        message = refusal(folder)
        assert name in message and "objects" in message
        (folder / name).write_bytes(whole)


def test_missing_parts_are_named(make_recording, tmp_path):
    assert "no such folder" in refusal_of_absent(tmp_path / "absent")
    assert "not a recording" in refusal(tmp_path)
    folder = make_recording("a")
    trial = first_trial(folder)
    (folder / f"data/behavior/{trial}.npy").unlink()
    assert f"behavior/{trial}.npy" in refusal(folder)
    folder = make_recording("b")
    (folder / "data/responses").rename(folder / "data/spikes")
    assert f"{folder}/data/responses: no such folder" in refusal(folder)
    folder = make_recording("c")
    (folder / "meta/neurons/cell_motor_coordinates.npy").unlink()
    assert "cell_motor_coordinates.npy: no such file" in refusal(folder)


def refusal_of_absent(folder) -> str:
    with pytest.raises(UserError) as refused:
        Recording(folder)
    return str(refused.value)


def test_tiers_must_match_the_trials(make_recording):
    folder = make_recording()
    spoil(folder, "meta/trials/tiers.npy", lambda tiers: tiers[:-1])
    assert "tiers.npy" in refusal(folder)
    spoil(folder, "meta/trials/tiers.npy", lambda tiers: np.append(tiers, ["train", "train"]))
    assert "no such file" in refusal(folder)
    spoil(folder, "meta/trials/tiers.npy", lambda tiers: np.where(tiers == "train", "trian", tiers))
    assert "did you mean 'train'" in refusal(folder)
    spoil(folder, "meta/trials/tiers.npy", lambda tiers: np.full_like(tiers, "none"))
    assert "no usable trial" in refusal(folder)


def test_a_neuron_entered_twice_is_refused(make_recording):
    folder = make_recording("ids")
    spoil(folder, "meta/neurons/unit_ids.npy", lambda ids: np.append(ids[:-1], ids[0]))
    assert "occurs 2 times" in refusal(folder)
    folder = make_recording("places")
    spoil(folder, "meta/neurons/cell_motor_coordinates.npy", lambda xyz: np.concatenate([xyz[:-1], xyz[:1]]))
    Recording(folder)  # two cells may share a rounded position
    for trial in Recording(folder).usable:
        spoil(folder, f"data/responses/{trial}.npy", lambda x: np.concatenate([x[:-1], x[:1]]))
    assert "neurons 0 and 7 are one" in refusal(folder)


def test_unusable_trials_need_no_files(make_recording):
    folder = make_recording()
    trial = int(np.flatnonzero(Recording(folder).tiers == "none")[0])
    for modality in ("videos", "responses", "behavior", "pupil_center"):
        (folder / f"data/{modality}/{trial}.npy").unlink()
    assert trial not in Recording(folder).usable
    with pytest.raises(UserError, match="unusable"):
        Recording(folder).trial(trial)


def test_recordings_are_found_by_folder_and_by_alias(make_recording, tmp_path):
    data_dir = tmp_path / "data"
    make_recording("mouse1")
    make_recording("mouse1_day2")
    make_recording(f"../sensorium/{KNOWN['B'].folder}")
    make_recording("../rochefort-lab/VIPcre232_FOV1_day2/natural_movies")
    assert list(find_recordings(data_dir / "lab")) == ["mouse1"]
    assert list(find_recordings(data_dir / "lab", ["mouse1_day2"])) == ["mouse1_day2"]
    assert find_recordings(data_dir, ["B", "K_day2"])["K_day2"].name == "natural_movies"
    assert list(find_recordings(data_dir / "lab" / "mouse1")) == ["mouse1"]
    with pytest.raises(UserError, match="--mouse_ids"):
        find_recordings(data_dir)
    with pytest.raises(UserError, match="did you mean 'mouse1'"):
        find_recordings(data_dir, ["mouse11"])
    with pytest.raises(UserError, match=r"download.py --mouse_ids A"):
        find_recordings(data_dir, ["A"])
    with pytest.raises(UserError, match="simulate.py"):
        find_recordings(tmp_path / "nothing")


def test_simulated_mice_do_not_stand_in_the_way_of_real_ones(make_recording, capsys):
    real = make_recording("mouse1")
    make_recording("../simulated/simA")
    data_dir = real.parent.parent
    assert list(find_recordings(data_dir)) == ["mouse1"]
    assert "left out" in capsys.readouterr().out
    assert list(find_recordings(data_dir, ["simA"])) == ["simA"]
