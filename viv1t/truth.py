"""The truth of simulated mice, for judging what an analysis estimates; and which neurons a twin predicts well enough.

A twin can only show the tuning that it has learnt: estimates from it are judged on neurons whose prediction reaches
a share of the ceiling, and that fraction is told. Every comparison writes rows (`mouse`, `quantity`, `statistic`,
`value`, `n`, `selection`), which `benchmarks/validate.py` gathers.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import io
from viv1t.data.mice import find_recordings
from viv1t.errors import UserError
from viv1t.results import locate, read_scores

SHARE_OF_CEILING = 0.8
TIERS = ("live_main", "final_main")  # test movies on which predictions are judged


def read_truth(data_dir: Path | str, mouse_id: str, neurons: np.ndarray) -> pd.DataFrame:
    """Parameters and noiseless tuning of a simulated mouse's neurons (rows of its recording), in that order."""
    folder = find_recordings(data_dir, [mouse_id])[mouse_id]
    path = folder / "truth" / "neurons.csv"
    if not path.is_file():
        raise UserError(
            f"mouse {mouse_id} is not simulated ({path} is missing), so there is no truth to compare with."
        )
    return pd.read_csv(path).iloc[np.asarray(neurons)].reset_index(drop=True)


def well_predicted(run_dir: Path | str, mouse_id: str, neurons: np.ndarray) -> np.ndarray:
    """(N,) bool: neurons whose correlation with recorded test movies reaches 0.8 of the true rate's.

    All are, in a folder without a checkpoint: there the animal itself answered. Needs the scores of evaluate.py.
    """
    if not locate(run_dir, "config").is_file():
        return np.ones(len(neurons), dtype=bool)
    scores = read_scores(run_dir)
    scores = scores[(scores["mouse"] == mouse_id) & scores["tier"].isin(TIERS)]
    if not len(scores):
        raise UserError(
            f"{run_dir}: mouse {mouse_id} has no scores on {' or '.join(TIERS)}. Run predict.py and evaluate.py."
        )
    means = scores.groupby("neuron")[["challenge_correlation", "true_rate"]].mean().reindex(neurons)
    return (means["challenge_correlation"] >= SHARE_OF_CEILING * means["true_rate"]).to_numpy()


def row(mouse: str, quantity: str, statistic: str, value: float, n: int, selection: str) -> dict:
    """One number of a comparison. quantity: what is estimated, with unit; selection: which neurons, in words."""
    return locals()


def write_comparison(run_dir: Path | str, analysis: str, rows: list[dict]) -> Path:
    """RUN/validation/<analysis>.csv, and the same as printed lines."""
    table, path = pd.DataFrame(rows), Path(run_dir) / "validation" / f"{analysis}.csv"
    io.write_table(path, table)
    for _, line in table.iterrows():
        print(f"mouse {line['mouse']}: {line['quantity']}, {line['statistic']}: {line['value']:.3g} "
              f"(n = {line['n']} {line['selection']})")  # fmt: skip
    return path
