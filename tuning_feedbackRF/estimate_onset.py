"""Estimate when every neuron begins to answer to its classical and to its inverse grating, and by how much later.

reads   RUN/feedbackRF/onset_mouse<ID>.h5 (predict_onset.py), RUN/size_tuning.csv (estimate_size_tuning.py)
writes  RUN/response_onset.csv, one row per neuron; RUN/statistics/onset.csv: the answer to the question below
next    visualize_onset.py, compare_truth.py

An onset is where the response, averaged over phases and above the response to grey, first reaches half of its own peak
(--share), between frames. Both stimuli drive different filters, which alone makes the onsets differ: simulated mice
have neurons whose feedback is not delayed, and compare_truth.py subtracts their lag. In real mice there is no such
control. A twin is causal at the frame rate of its movies: at 30 Hz it sees bins of 33 ms.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.estimators.latency import aligned_lag_ms, lag_intervals, latency_ms, rising_phase
from viv1t.measurements import Measurement
from viv1t.results import find_mice, locate, read_table, require, write_answers
from viv1t.stats import ask

QUESTION = "Do inverse-tuned neurons answer later to the inverse than to the classical grating?"


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with feedbackRF/")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all of predict_onset.py)")
    parser.add_argument("--share", type=cli.number(float, 0.01, 0.99), default=0.15, metavar="X",
                        help="of the peak that marks the onset (default: 0.15)")  # fmt: skip
    parser.add_argument("--least_rise", type=cli.number(float, 0), default=1.0, metavar="X",
                        help="peak that has an onset, in responses to grey (default: 1)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N",
                        help="of resamples (default: 1234)")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    mice = find_mice(run_dir, "onset", args.mouse_ids)
    sizes = read_table(run_dir, "size_tuning", mice)
    tables = [estimate(run_dir, mouse_id, sizes[sizes["mouse"] == mouse_id], args) for mouse_id in mice]
    table, path = pd.concat(tables, ignore_index=True), locate(run_dir, "response_onset")
    io.write_table(path, table)
    print(path)
    answer = ask(QUESTION, "median lag (ms)", table[table["inverse_tuned"]], "lag_ms",
                 np.random.default_rng(args.seed), statistic=np.median)  # fmt: skip
    write_answers(run_dir, "onset", [answer])


def estimate(run_dir: Path, mouse_id: str, sizes: pd.DataFrame, args) -> pd.DataFrame:
    """One row for each neuron of a mouse."""
    with Measurement(require(run_dir, "onset", mouse_id)) as measurement:
        fps, grey, neurons = measurement.about["fps"], measurement.spontaneous, measurement.neurons
        classical, inverse = (time_courses(measurement, kind) for kind in ("centre", "inverse"))
    least, rng = args.least_rise * grey, np.random.default_rng(args.seed)
    rises = [rising_phase(each.mean(axis=1), least) for each in (classical, inverse)]
    onset, inverse_onset = (latency_ms(rise, fps, args.share) for rise in rises)
    known = ["neuron", "x_um", "y_um", "z_um", "responsive", "inverse_tuned"]
    table = sizes.set_index("neuron").reindex(neurons).reset_index()[known]
    table.insert(0, "mouse", mouse_id)
    table = table.assign(
        onset_ms=onset,
        inverse_onset_ms=inverse_onset,
        lag_ms=inverse_onset - onset,
        lag_aligned_ms=aligned_lag_ms(*rises, fps),
    ).join(lag_intervals(classical, inverse, fps, rng, least, args.share))
    tuned = table["inverse_tuned"]
    print(
        f"mouse {mouse_id}: {tuned.sum()} inverse-tuned neurons, {table.loc[tuned, 'lag_ms'].isna().sum()} of them "
        f"without a lag; median onset {table.loc[tuned, 'onset_ms'].median():.0f} ms, inverse "
        f"{table.loc[tuned, 'inverse_onset_ms'].median():.0f} ms"
    )
    return table


def time_courses(measurement: Measurement, kind: str) -> np.ndarray:
    """Responses above grey to each phase, (N, phases, frames), averaged over directions."""
    table = measurement.conditions[measurement.conditions["kind"] == kind]
    responses = measurement.responses[:]
    phases = [responses[own.index].mean(axis=0) for _, own in table.groupby("phase_deg")]
    return np.stack(phases, axis=1) - measurement.spontaneous[:, None, None]


if __name__ == "__main__":
    cli.run(main, get_parser())
