"""Estimate how the surround changes every neuron's answer, and whose preference turns with contrast.

Works alike on a twin, an animal and a recording. Samples are single presentations of a stimulus: phases of a twin's
gratings, repeats of a recording's. Responses are those above the response to grey.

reads   RUN/contextual_modulation/mouse<ID>.h5 (predict_gratings.py or read_recording.py); aRF.csv, and size_tuning.csv
        where it exists, of RUN or --fields_of
writes  RUN/contextual_modulation.csv, one row per neuron, contrast and size; RUN/contextual_flips.csv, one row per
        neuron, if several contrasts were shown; RUN/statistics/contextual_modulation.csv, one row per question
next    visualize_contextual_modulation.py, visualize_contrast_difference.py, compare_truth.py
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli, io
from viv1t.data.mice import first_session
from viv1t.errors import UserError
from viv1t.estimators.contextual import (
    flip_test,
    hold_out,
    naka_rushton,
    noise_floor,
    surround_modulation,
    turns,
)
from viv1t.estimators.size_tuning import underfilled
from viv1t.measurements import Measurement
from viv1t.results import find_mice, locate, read_fields, read_table, require, write_answers
from viv1t.stats import Answer, ask, benjamini_hochberg
from viv1t.stimulus.contexts import KINDS

# One test each, of responsive neurons whose field the stimuli were centred on, at the disc that fits the neuron best.
PREFERS_CROSS_HIGH = "At high contrast, is the response to an iso surround smaller than to a cross surround?"
PREFERS_CROSS_LOW = "At low contrast, is the response to an iso surround smaller than to a cross surround?"
SUPPRESSES = "At high contrast, does an iso surround suppress the response to a disc that fills the field?"
FLIPS = "Do more neurons turn from cross to iso, as contrast falls, than if labels of contrast are exchanged?"

TYPICAL_SIZE = 20.0  # deg, as published, for neurons whose preferred size is not known
ROUNDING = 1e-5  # of the response to grey, below which a difference from it is none
LEAST_CONTRASTS = 4  # from which a contrast response is fitted
FITTED = ("centre", "iso", "cross")


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="folder with contextual_modulation/")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice (default: all that were shown them)")
    parser.add_argument("--fields_of", metavar="RUN2", help="run with aRF.csv and size_tuning.csv (default: RUN)")
    for name, default, help in (
        ("max_offset", 2.0, "px from stimulus to field up to which a neuron is centred"),
        ("least_rise", 1.0, "responsive: centre so many times the grey response above it, at the highest contrast"),
        ("floor", 0.05, "responses to two stimuli together must exceed so many times the grey response"),
        ("threshold", 0.2, "flip: relative difference of iso and cross, at either contrast"),
    ):
        parser.add_argument(f"--{name}", type=cli.number(float, 0), default=default, metavar="X",
                            help=f"{help} (default: {default:g})")  # fmt: skip
    parser.add_argument("--q", type=cli.number(float, 0, 1), default=0.05, metavar="X",
                        help="flip: false discovery rate over the neurons of a mouse (default: 0.05)")  # fmt: skip
    parser.add_argument("--permutations", type=cli.number(int, 20), default=2000, metavar="N",
                        help="exchanges of labels of contrast (default: 2000)")  # fmt: skip
    parser.add_argument("--seed", type=cli.number(int, 0), default=1234, metavar="N",
                        help="of resamples and exchanges (default: 1234)")  # fmt: skip
    parser.add_argument("--shuffle", type=cli.number(int, 0), metavar="SEED",
                        help="control: exchange neurons; writes <table>_shuffled.csv")  # fmt: skip
    return parser


def main(args) -> None:
    run_dir, tables, flips = Path(args.output_dir), [], []
    for mouse_id in find_mice(run_dir, "context", args.mouse_ids):
        shown = read(mouse_id, args)
        tables.append(modulation(shown, args))
        report(mouse_id, tables[-1])
        if len(shown.contrasts) > 1:
            flips.append(find_flips(shown, tables[-1], args))
            report_flips(mouse_id, flips[-1])
    table, turned = pd.concat(tables, ignore_index=True), pd.concat(flips, ignore_index=True) if flips else None
    for name, result in (("contextual_modulation", table), ("contextual_flips", turned)):
        if result is not None:
            path = locate(run_dir, name)
            path = path if args.shuffle is None else path.with_stem(f"{path.stem}_shuffled")
            io.write_table(path, result)
            print(path)
    if args.shuffle is None:
        print(write_answers(run_dir, "contextual_modulation", answers(table, turned, args.seed)))


@dataclass(frozen=True)
class Shown:
    """What n neurons answered to P patterns.

    neurons: one row each, with `mouse`, `neuron`, place, `offset_px`, `centred` and `preferred_size_deg`; conditions:
    P rows; above (P, n): responses above grey; grey (n,); own_size (n,): diameters (deg) that stand for sizes that
    the conditions leave open.
    """

    neurons: pd.DataFrame
    conditions: pd.DataFrame
    above: np.ndarray
    grey: np.ndarray
    own_size: np.ndarray

    @property
    def contrasts(self) -> np.ndarray:
        return np.unique(self.conditions["contrast"])

    @property
    def sizes(self) -> np.ndarray:
        """Diameters of discs (deg); one NaN where every neuron has its own."""
        sizes = np.unique(self.conditions["size_deg"].dropna())
        return sizes if len(sizes) else np.array([np.nan])

    def samples(self, contrast: float, size: float, neurons=slice(None)) -> dict[str, np.ndarray]:
        """Responses (S, n) to every kind that was shown; iso without a border belongs to all sizes."""
        table = self.conditions
        fits = (table["contrast"] == contrast) & (table["size_deg"].isna() | (table["size_deg"] == size))
        found = {kind: self.above[np.flatnonzero(fits & (table["kind"] == kind))][:, neurons] for kind in KINDS}
        return {kind: samples for kind, samples in found.items() if len(samples)}

    def mean(self, kind: str, contrast: float, size: float) -> np.ndarray:
        samples = self.samples(contrast, size).get(kind)
        return np.full(len(self.grey), np.nan) if samples is None else samples.mean(axis=0)


def read(mouse_id: str, args) -> Shown:
    """The neurons that were shown the stimuli and have responses."""
    fields_of = args.fields_of or args.output_dir
    with Measurement(require(args.output_dir, "context", mouse_id)) as measurement:
        responses, grey = measurement.responses[:].astype(float), measurement.spontaneous.astype(float)
        kept = measurement.shown & np.isfinite(grey) & np.isfinite(responses).all(axis=0)
        if not kept.any():
            raise UserError(f"{measurement.path}: no neuron has responses. Make it again, for other --neurons.")
        x, y, z = measurement.coordinates[kept].T
        neurons = pd.DataFrame(
            {"mouse": mouse_id, "neuron": measurement.neurons[kept], "x_um": x, "y_um": y, "z_um": z}
        )
        offset = offsets(fields_of, mouse_id, neurons["neuron"], measurement.centre[kept])
        own = measurement.about.get("own_size_deg")
        own_size = np.array(own, dtype=float)[kept] if own else np.full(len(neurons), np.nan)
        conditions = measurement.conditions
    neurons = neurons.assign(offset_px=offset, centred=offset <= args.max_offset,
                             preferred_size_deg=preferred_sizes(fields_of, mouse_id, neurons["neuron"]))  # fmt: skip
    grey, above = grey[kept], responses[:, kept] - grey[kept]
    if args.shuffle is not None:
        order = np.random.default_rng(args.shuffle).permutation(len(grey))
        grey, above = grey[order], above[:, order]
    return Shown(neurons, conditions, above, grey, own_size)


def offsets(run_dir: str, mouse_id: str, neurons: pd.Series, centre: np.ndarray) -> np.ndarray:
    """Distance (px) from the stimulus to each neuron's field; NaN where it has no accepted one."""
    fields = read_fields(run_dir, [first_session(mouse_id)]).set_index("neuron").reindex(neurons)
    distance = np.hypot(*(fields[["x", "y"]].to_numpy() - centre).T)
    return np.where(fields["bad_fit"].fillna(True).astype(bool), np.nan, distance)


def preferred_sizes(run_dir: str, mouse_id: str, neurons: pd.Series) -> np.ndarray:
    """Preferred diameters (deg); NaN where they are not known."""
    if not locate(run_dir, "size_tuning").is_file():
        return np.full(len(neurons), np.nan)
    table = read_table(run_dir, "size_tuning", [first_session(mouse_id)]).set_index("neuron")
    return table["preferred_size_deg"].reindex(neurons).to_numpy()


def modulation(shown: Shown, args) -> pd.DataFrame:
    """One row per contrast, size and neuron."""
    rng, least, parts = np.random.default_rng(args.seed), args.floor * abs(shown.grey), []
    chosen, responsive = choose(shown), respond(shown, args.least_rise)
    for contrast in shown.contrasts:
        centre = np.stack([shown.mean("centre", contrast, size) for size in shown.sizes], axis=1)
        small = underfilled(centre, shown.sizes)
        for s, size in enumerate(shown.sizes):
            own = {
                "contrast": contrast,
                "size_deg": shown.own_size if np.isnan(size) else size,
                "chosen": chosen == s,
                "responsive": responsive,
                "underfilled": small[:, s],
            }
            means = {kind: shown.mean(kind, contrast, size) for kind in KINDS}
            indices = surround_modulation(shown.samples(contrast, size), least, rng)
            parts.append(shown.neurons.assign(**own, **means).join(indices))
    return pd.concat(parts, ignore_index=True)


def choose(shown: Shown) -> np.ndarray:
    """Position (n,) of the shown size nearest to the preferred one."""
    preferred = shown.neurons["preferred_size_deg"].fillna(TYPICAL_SIZE).to_numpy()
    return np.nan_to_num(abs(shown.sizes - preferred[:, None])).argmin(axis=1)


def respond(shown: Shown, least_rise: float) -> np.ndarray:
    """(n,) bool: the answer to the chosen disc, at the highest contrast, stands out from grey and from noise."""
    responsive, chosen = np.zeros(len(shown.grey), dtype=bool), choose(shown)
    for s in np.unique(chosen):
        own = chosen == s
        centre = shown.samples(shown.contrasts[-1], shown.sizes[s], own).get("centre")
        if centre is None:
            raise UserError("no disc alone was shown, without which there is no modulation. Add 'centre' to --kinds.")
        mean, grey = centre.mean(axis=0), np.maximum(shown.grey[own], 0)
        floor = noise_floor(centre, np.zeros_like(centre), ROUNDING * grey)
        responsive[own] = (mean > floor) & (mean >= least_rise * grey)
    return responsive


def find_flips(shown: Shown, table: pd.DataFrame, args) -> pd.DataFrame:
    """One row per neuron: the lowest against the highest contrast, at its chosen size.

    A neuron flips if it passes the published threshold and the test of the interaction, and if its CMI is certainly
    above 0 at the high and below 0 at the low contrast: a preference that only vanishes passes the test, too, and with
    some noise the threshold.
    """
    rng, chosen, parts = np.random.default_rng(args.seed), choose(shown), []
    low, high = shown.contrasts[[0, -1]]
    for s in np.unique(chosen):
        own = np.flatnonzero(chosen == s)
        least = args.floor * abs(shown.grey[own])
        samples = [shown.samples(contrast, shown.sizes[s], own) for contrast in (high, low)]
        if not {"iso", "cross"} <= set(samples[0]) & set(samples[1]):
            raise UserError("flips compare iso and cross at two contrasts. Add both to --kinds.")
        part = flip_test(*samples, least, rng, args.permutations, args.threshold)
        part = part.join(hold_out(*samples, least, args.threshold))
        if len(shown.contrasts) >= LEAST_CONTRASTS and low > 0:
            part = part.join(contrast_responses(shown, shown.sizes[s], own))
        parts.append(part.assign(neuron=shown.neurons["neuron"].to_numpy()[own]))
    at_low, at_high = (table[table["chosen"] & (table["contrast"] == c)].set_index("neuron") for c in (low, high))
    both_signs = (at_high["cmi_low"] > 0) & (at_low["cmi_high"] < 0)
    identity = at_high.reset_index()[[*shown.neurons, "size_deg", "responsive"]]
    flips = identity.merge(pd.concat(parts), on="neuron").assign(low_contrast=low, high_contrast=high)
    candidate = flips["responsive"] & flips["centred"]
    flips["q"] = benjamini_hochberg(flips["p"].where(candidate).to_numpy())
    flips["both_signs"] = both_signs.reindex(flips["neuron"]).to_numpy()
    return flips.assign(flip=flips["flip_by_threshold"] & (flips["q"] <= args.q) & flips["both_signs"])


def contrast_responses(shown: Shown, size: float, own: np.ndarray) -> pd.DataFrame:
    """Contrast responses of the kinds FITTED, columns `r_max_<kind>`, `c50_<kind>`, ..."""
    fits = []
    for kind in FITTED:
        curve = np.stack([shown.mean(kind, contrast, size)[own] for contrast in shown.contrasts], axis=1)
        fits.append(naka_rushton(curve, shown.contrasts).add_suffix(f"_{kind}"))
    return pd.concat(fits, axis=1)


def report(mouse_id: str, table: pd.DataFrame) -> None:
    for contrast, own in table[table["chosen"]].groupby("contrast"):
        used = own[own["responsive"] & own["centred"]]
        print(
            f"mouse {mouse_id}, contrast {contrast:g}: {len(own)} neurons, {own['responsive'].sum()} responsive, "
            f"{len(used)} of them centred; CMI of {used['cmi'].notna().sum()} ({used['cmi'].isna().sum()} undefined), "
            f"median {used['cmi'].median():.2f}; iso surround suppresses {(used['mi_iso_high'] < 0).sum()}, excites "
            f"{(used['mi_iso_low'] > 0).sum()}"
        )


def report_flips(mouse_id: str, flips: pd.DataFrame) -> None:
    used = flips[flips["responsive"] & flips["centred"] & flips["interaction"].notna()]
    chosen = used[used["flip_chosen"]]
    again = turns(chosen["cmi_high_held"], chosen["cmi_low_held"])
    print(
        f"mouse {mouse_id}: {used['flip'].sum()} of {len(used)} neurons turn from cross to iso; by threshold alone "
        f"{share(used['flip_by_threshold'])}, {share(used['chance'])} with labels of contrast exchanged; of "
        f"{len(chosen)} chosen on half of the samples, {share(again)} turn on the other half"
    )


def share(values) -> str:
    return f"{100 * np.mean(values):.1f} %" if len(values) else "none"


def answers(table: pd.DataFrame, flips: pd.DataFrame | None, seed: int) -> list[Answer]:
    """One test for each question at the top."""

    def test(question: str, effect: str, own: pd.DataFrame, column: str) -> Answer:
        own = own[own["responsive"] & own["centred"]]
        return ask(question, effect, own, column, np.random.default_rng(seed))

    own = table[table["chosen"]]
    high, low = (own[own["contrast"] == contrast] for contrast in (own["contrast"].max(), own["contrast"].min()))
    asked = [
        test(PREFERS_CROSS_HIGH, "CMI, (cross - iso) / (cross + iso)", high, "cmi"),
        test(SUPPRESSES, "(iso - centre) / (iso + centre)", high[~high["underfilled"]], "mi_iso"),
    ]
    if flips is not None:
        more = flips.assign(more=flips["flip_by_threshold"] - flips["chance"])
        asked.insert(1, test(PREFERS_CROSS_LOW, "CMI, (cross - iso) / (cross + iso)", low, "cmi"))
        asked.append(test(FLIPS, "share of neurons above chance", more, "more"))
    return asked


if __name__ == "__main__":
    cli.run(main, get_parser())
