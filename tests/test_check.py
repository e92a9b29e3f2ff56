"""`data/check.py` prints what recordings hold, and one line per recording that cannot be used."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from viv1t.data.recording import Recording

SCRIPT = Path(__file__).parents[1] / "data" / "check.py"


def check(data_dir, *options):
    done = subprocess.run([sys.executable, SCRIPT, "--data_dir", data_dir, *options], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_table_of_good_recordings(make_recording):
    folder = make_recording(unmatched=(1,))
    recording = Recording(folder)
    train, tested = int(recording.trial_ids("train")[0]), int(recording.trial_ids("live_main")[0])
    np.save(recording.path("videos", tested), np.load(recording.path("videos", train)))
    code, out, err = check(folder.parent)
    assert code == 0, err
    rows = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in out.splitlines() if line.strip()}
    assert rows["neurons"] == "8" and rows["trials train"] == "6" and rows["withheld trials"] == "2"
    assert rows["clips in train and test"] == "1"
    assert "training clips are shown in other tiers" in out and "1 neurons were not found" in out


def test_every_bad_recording_gets_a_line_and_nothing_is_written(make_recording):
    good, short, broken = (make_recording(name) for name in ("good", "short", "broken"))
    (short / "data/videos/0.npy").write_bytes(b"")
    np.save(broken / "meta/neurons/unit_ids.npy", np.zeros(8, int))
    code, out, err = check(good.parent, "--quick")
    assert code == 2 and "2 of 3 recordings cannot be used" in err
    assert "mouse short: " in out and "mouse broken: " in out and "neurons" in out
    assert not (good.parent / ".cache").exists()
