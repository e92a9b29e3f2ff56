"""Sessions of short patterns: read as they were written, block by block; whatever is wrong with one is named."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from viv1t.data.session import FRAMES, NAMES, STIMULI, Session, find_sessions, read_stimuli, write_session
from viv1t.errors import UserError

NEURONS, TRIALS, BLOCKS, LOST = 5, 3, 4, 2
TABLE = pd.DataFrame(
    {
        "name": ["CM000", "CM001", "CM002"],
        "kind": ["centre", "iso", "cross"],
        "contrast": [0.05, 1, 1],
        "size_deg": [20, np.nan, 20],
        "direction_deg": [90, 90, 270],
    }
)


def trials() -> np.ndarray:
    responses = np.random.default_rng(0).gamma(1, 2, (TRIALS, NEURONS, BLOCKS * FRAMES)).astype(np.float32)
    responses[:, LOST] = np.nan
    return responses


def names() -> np.ndarray:
    return np.random.default_rng(1).choice([*TABLE["name"], "GCS000_N007"], (TRIALS, BLOCKS))


@pytest.fixture
def session(tmp_path) -> Path:
    folder = tmp_path / "data" / "rochefort-lab" / "VIPcre232_FOV1_day2" / "artificial_movies"
    write_session(folder, names(), trials(), np.arange(3.0 * NEURONS).reshape(NEURONS, 3), TABLE)
    return folder


def test_blocks_are_those_that_were_written_in_order(session):
    read = list(Session(session).blocks())
    assert [name for name, _, _ in read] == names().ravel().tolist()
    assert [trial for _, trial, _ in read] == np.repeat(np.arange(TRIALS), BLOCKS).tolist()
    expected = trials().reshape(TRIALS, NEURONS, BLOCKS, FRAMES).swapaxes(1, 2).reshape(-1, NEURONS, FRAMES)
    assert np.array_equal(np.stack([block for _, _, block in read]), expected, equal_nan=True)
    assert np.isnan(read[0][2][LOST]).all()
    pd.testing.assert_frame_equal(read_stimuli(session / STIMULI), TABLE, check_dtype=False)


def test_sessions_are_found_by_the_names_of_their_mice_at_every_depth(session):
    for folder in (session.parents[2], session.parents[1], session.parent):
        assert find_sessions(folder) == {"K_day2": session} == find_sessions(folder, ["K_day2"])
    with pytest.raises(UserError, match=r"--mouse_ids K_day3.*did you mean 'K_day2'"):
        find_sessions(session.parents[2], ["K_day3"])
    with pytest.raises(UserError, match="no session"):
        find_sessions(session.parents[2], subfolder="natural_movies")


def test_neurons_lie_where_the_first_session_says(session):
    own = session / "meta" / "neurons" / "cell_motor_coordinates.npy"
    (session.parent / "natural_movies" / "meta" / "neurons").mkdir(parents=True)
    own.rename(session.parent / "natural_movies" / "meta" / "neurons" / own.name)
    assert len(Session(session).coordinates) == NEURONS


def test_names_that_would_have_to_be_unpickled_are_refused_with_a_cure(session):
    """As published: text in an array of objects. The command in the message makes it readable."""
    path = session / NAMES
    np.save(path, names().astype(object), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects, which are never loaded") as told:
        Session(session)
    code = re.search(r'python -c "(.*)"', str(told.value))[1]
    exec(code, {})
    assert [name for name, _, _ in Session(session).blocks()] == names().ravel().tolist()


def with_nan(responses: np.ndarray, neuron: int) -> np.ndarray:
    responses[neuron, 7] = np.nan if np.isfinite(responses[neuron, 7]) else 1.0
    return responses


PLACES = Path("meta") / "neurons" / "cell_motor_coordinates.npy"
FIRST, LAST = Path("data") / "responses" / "0.npy", Path("data") / "responses" / "2.npy"
BAD = {  # what is wrong -> file, its array changed (None: removed), what is told
    "missing trial": (LAST, None, "responses/2.npy: no such file"),
    "missing frames": (LAST, lambda r: r[:, :-1], "responses/2.npy: float32 (5, 239), expected (5, 240)"),
    "missing neuron": (LAST, lambda r: r[1:], "expected (5, 240): 5 neurons, 4 blocks of 60 frames"),
    "text": (FIRST, lambda r: r.astype(str), "responses/0.npy: <U"),
    "hole": (FIRST, lambda r: with_nan(r, 1), "responses/0.npy: neuron 1 is not finite in some frames"),
    "returned neuron": (LAST, lambda r: with_nan(r, LOST), f"responses/2.npy: neuron {LOST} is not finite"),
    "infinity": (FIRST, lambda r: np.where(r > 9, np.inf, r), "is not finite in some frames"),
    "numbers for names": (NAMES, lambda n: np.zeros(n.shape), "video_ids.npy: float64 (3, 4), expected names"),
    "one row of names": (NAMES, lambda n: n[0], "expected names (trials, blocks)"),
    "no neurons": (PLACES, None, "Copy it from the mouse's first session"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_malformed_session_is_named(session, what):
    name, change, told = BAD[what]
    if change is None:
        (session / name).unlink()
    else:
        np.save(session / name, change(np.load(session / name)))
    with pytest.raises(UserError, match=re.escape(told)) as error:
        list(Session(session).blocks())
    assert "\n" not in str(error.value)


def test_a_file_that_was_cut_off_is_named(session):
    for name in (NAMES, FIRST):
        whole = (session / name).read_bytes()
        (session / name).write_bytes(whole[:100])
        with pytest.raises(UserError, match=f"{name.name}: "):
            list(Session(session).blocks())
        (session / name).write_bytes(whole)


BAD_TABLES = {
    "": "not a table",
    "name,kind,contrast,size_deg\nA,iso,1,20": "no column direction_deg",
    "name,kind,contrast,size,direction_deg\nA,iso,1,20,0": "no column size_deg; did you mean 'size'?",
    "name,kind,contrast,size_deg,direction_deg\nA,iso,1,20,0\nA,cross,1,20,0": "the name 'A' stands twice",
    "name,kind,contrast,size_deg,direction_deg\nA,iso,high,20,0": "contrast of 'A' is not a number",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_malformed_table_of_stimuli_is_named(tmp_path, text):
    path = tmp_path / "stimuli.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(BAD_TABLES[text])) as error:
        read_stimuli(path)
    assert str(path) in str(error.value)


def test_a_missing_table_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="name,kind,contrast,size_deg,direction_deg"):
        read_stimuli(tmp_path / "stimuli.csv")
