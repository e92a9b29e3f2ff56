"""Scores by groups of neurons or trials: tier, kind of stimulus, depth, reliability, class of cell.

Tables have one row per mouse, neuron and set of trials, as `evaluate.py` writes them. Depth, reliability and class
split the neurons of one tier: every neuron is in one group. Groups by reliability are quarters of each mouse's own
neurons; the same trials say how reliable a neuron is and how well it is predicted, so noise that makes it look
reliable lifts its score too. Compare twins within a quarter rather than quarters of one twin.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from viv1t import stats
from viv1t.constants import STIMULI, TIERS

SCORE = "challenge_correlation"
RATIO, DIFFERENCE = "ratio_to_ceiling", "difference_from_others"  # computed for a group, not for a neuron
RATIOS = {RATIO: (SCORE, "ceiling")}
DEFAULT = (SCORE, "pooled_normalized_correlation", RATIO)
QUARTERS = 4
NEEDED = ("depth_um", "cell_class")  # columns that tables of earlier versions lack


def planes(depth_um: np.ndarray, most: int = 20, thickness: float = 25.0) -> np.ndarray:
    """The imaging plane (N,) of each neuron in um: its depth, or slices of a volume with more than `most` depths."""
    depth_um = np.asarray(depth_um, dtype=float)
    return depth_um if len(np.unique(depth_um)) <= most else thickness * np.rint(depth_um / thickness)


def quantiles(values: np.ndarray, count: int = QUARTERS) -> np.ndarray:
    """Which of `count` equal groups (N,) each value is in: 0 for the lowest, -1 for NaN. Ties stay together."""
    values = np.asarray(values, dtype=float)
    known = np.isfinite(values)
    if not known.any():
        return np.full(len(values), -1)
    edges = np.quantile(values[known], np.arange(1, count) / count)
    return np.where(known, np.searchsorted(edges, values, side="right"), -1)


def _by_depth(neurons: pd.DataFrame) -> pd.Categorical:
    plane = neurons.groupby("mouse", sort=False)["depth_um"].transform(planes)
    return _named(plane, {um: f"{um:g} µm" for um in np.unique(plane)})


def _by_reliability(neurons: pd.DataFrame) -> pd.Categorical:
    quarter = neurons.groupby("mouse", sort=False)["explainable_variance"].transform(quantiles)
    return _named(quarter, {i: f"quarter {i + 1}" for i in range(QUARTERS)} | {-1: "no repeats"})


def _by_cell_class(neurons: pd.DataFrame) -> pd.Categorical:
    return pd.Categorical(neurons["cell_class"].fillna("unknown"))


def _named(values: pd.Series, names: Mapping) -> pd.Categorical:
    return pd.Categorical(values.map(names), list(names.values()), ordered=True)


PARTITIONS = {"depth": _by_depth, "reliability": _by_reliability, "cell_class": _by_cell_class}
GROUPINGS = ("tier", "stimulus", *PARTITIONS)


def default_scores(by: str) -> list[str]:
    """What tables show; most reliable neurons are predicted best, which needs no test."""
    return [*DEFAULT, *([DIFFERENCE] if by in ("depth", "cell_class") else [])]


def ceiling_of(table: pd.DataFrame) -> str:
    """The column that bounds the challenge correlation: the true rate if it is known, else the oracle."""
    return "true_rate" if table["true_rate"].notna().any() else "oracle"


def assign(neurons: pd.DataFrame, by: str, tier: str) -> pd.DataFrame:
    """Rows of the table that a grouping compares, with the ordered category `group`, and the `ceiling` of each neuron.

    by: one of GROUPINGS; a tier, the kind of stimulus or both are groups of trials, of the same neurons; the others
    split the neurons scored on `tier`. Empty if nothing is known about it (no bonus tiers, no classes of cells).
    """
    known = neurons.groupby(["mouse", "tier"])["true_rate"].transform(lambda rates: rates.notna().any())
    neurons = neurons.assign(ceiling=neurons["true_rate"].where(known, neurons["oracle"]))
    if by in PARTITIONS:
        rows = neurons[neurons["tier"] == tier]
        if by == "cell_class" and rows["cell_class"].isna().all():
            rows = rows[:0]
        return rows.assign(group=PARTITIONS[by](rows))
    kinds = neurons["tier"].isin(STIMULI)
    rows = neurons[kinds if by == "stimulus" else ~kinds]
    return rows.assign(group=pd.Categorical(rows["tier"], sorted(rows["tier"].unique(), key=_place), ordered=True))


def _place(name: str) -> tuple[int, int]:
    """Order of tiers and kinds as recorded; the whole of a tier before its kinds."""
    order = ("", *TIERS.values(), *STIMULI)
    tier, _, kind = name.partition(":")
    return order.index(tier), order.index(kind)


def summarize(
    grouped: pd.DataFrame,
    scores: Sequence[str],
    rng: np.random.Generator,
    ratios: Mapping[str, tuple[str, str]] = RATIOS,
    resamples: int = 1000,
) -> pd.DataFrame:
    """One row for each mouse and group, then for each group over the mice that have it, where several do.

    scores: columns; names in `ratios`, the mean of one column over the mean of another; DIFFERENCE, how much more
    correlation this group has than all other neurons of its mice. Each gives `<score>_mean`, `_low`, `_high` (95 %
    bootstrap over neurons; over mice, over animals and their neurons) and `_n`, the neurons behind it; `neurons`
    counts all of the group.
    """

    def row(mouse: str, group: str, parts: list[tuple[pd.DataFrame, pd.DataFrame]]) -> dict:
        row = {"mouse": mouse, "group": group, "neurons": sum(len(own) for own, _ in parts)}
        for score in scores:
            found = _interval(score, parts, rng, ratios, resamples)
            row |= {f"{score}_{key}": getattr(found, key) for key in ("mean", "low", "high", "n")}
        return row

    rows, over_mice, parts = [], [], {}
    for mouse, part in grouped.groupby("mouse", sort=False):
        for group, own in part.groupby("group", observed=True):
            parts.setdefault(group, []).append((own, part[part["group"] != group]))
            rows.append(row(mouse, group, parts[group][-1:]))
    for group in grouped["group"].cat.categories:
        mice = len(parts.get(group, ()))
        if mice > 1:
            over_mice.append(row(f"{mice} mice", group, parts[group]))
    table = pd.DataFrame(rows + over_mice)
    return table.assign(group=pd.Categorical(table["group"], grouped["group"].cat.categories, ordered=True))


def split(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of a summary: one row per group, over mice or of the only mouse that has it; and the rows of single mice."""
    of_several = table["mouse"].str.endswith(" mice")
    shared = table["group"].isin(table["group"][of_several])
    return table[of_several | ~shared].sort_values("group"), table[shared & ~of_several]


def _interval(score: str, parts: list, rng, ratios: Mapping, resamples: int) -> stats.Interval:
    """The interval of one score of a group: pairs (its neurons, the other neurons) of every mouse."""

    def values(column: str, which: int = 0) -> list[np.ndarray]:
        return [pair[which][column].to_numpy(dtype=float) for pair in parts]

    if score == DIFFERENCE:
        return stats.hierarchical_difference(values(SCORE), values(SCORE, 1), rng, resamples)
    if score in ratios:
        above, below = ratios[score]
        return stats.hierarchical_ratio(values(above), values(below), rng, resamples)
    return stats.hierarchical_bootstrap(values(score), rng, resamples)
