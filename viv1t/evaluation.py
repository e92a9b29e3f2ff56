"""Scores of a twin on recorded trials, neuron by neuron, beside what noise allows and what trivial models reach.

One pass over the trials keeps running correlations of every prediction (twin, baselines, true rate) in O(N) memory;
scores that need all repeats at once are computed for blocks of neurons.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from viv1t import baselines, io, stats
from viv1t.constants import SKIP, STIMULI
from viv1t.data.cache import Cache
from viv1t.estimators import accuracy, ceiling, groups, repeats
from viv1t.results import Responses

VERSION = 2  # of scores kept on disk
VERSION_OF_BASELINES = 1
BLOCK = 1000  # neurons scored at once
MOVIE_TIERS = ("live_main", "final_main")
BONUS_TIERS = ("live_bonus", "final_bonus")
SCORES = (
    "challenge_correlation",
    "single_trial_correlation",
    "correlation_to_average",
    "normalized_correlation",
    "pooled_normalized_correlation",
    "feve",
    "msse",
    "poisson_loss",
)
CEILINGS = (
    "true_rate",
    "oracle",
    "oracle_with_own_trial",
    "cc_max",
    "cc_max_single_trial",
    "split_half_reliability",
    "explainable_variance",
)
BASELINES = tuple(f"baseline_{name}" for name in baselines.NAMES)
REASONS = {
    "challenge_correlation": "not found in this session",
    "correlation_to_average": "no repeated video",
    "normalized_correlation": "no repeated video, or too little signal power",
    "pooled_normalized_correlation": f"repeats explain less than {accuracy.LEAST_SHARE:.0%} of the variance",
    "feve": f"repeats explain less than {accuracy.LEAST_SHARE_FEVE:.0%} of the variance",
    "poisson_loss": "negative predictions",
    "true_rate": "not a simulated mouse",
    "oracle": "no repeated video",
    "cc_max": f"repeats explain less than {accuracy.LEAST_SHARE:.0%} of the variance",
}


@dataclass(frozen=True)
class Subject:
    """One mouse to score: its recording, the twin's responses, and the twin's neurons as rows of the recording."""

    cache: Cache
    responses: Responses
    neurons: np.ndarray

    @property
    def id(self) -> str:
        return self.cache.recording.id

    def recorded(self, trial: int, rows: np.ndarray) -> np.ndarray:
        """Scored frames (n, T) float32 of some rows of the recording."""
        responses = self.cache.responses(trial)[:, rows].astype(np.float32).T
        return accuracy.scored(responses, responses.shape[1])

    def scored(self, trial: int, responses: np.ndarray) -> np.ndarray:
        return accuracy.scored(responses, int(self.cache.frames[trial]))

    def rates(self, trial: int) -> np.ndarray | None:
        """Scored frames of the expected response, on simulated mice."""
        rates = self.cache.recording.truth_rates(trial)
        return None if rates is None else self.scored(trial, rates[self.neurons])


def trial_sets(subject: Subject, tiers: list[str]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Trials to score by name, and why tiers were left out.

    Names are tiers; where a tier mixes kinds of stimulus, tier and kind, such as live_bonus:image; and where there are
    bonus tiers, every kind over the test tiers it belongs to.
    """
    sets, left_out = {}, {}
    cache = subject.cache
    for tier in tiers:
        predicted = subject.responses.trial_ids(tier)
        open_ones = [i for i in predicted if not cache.withheld[i]]
        trials = [i for i in open_ones if cache.frames[i] >= SKIP + 2]
        if trials:
            sets[tier] = trials
        elif open_ones:
            left_out[tier] = f"trials of at most {SKIP} frames"
        elif predicted:
            left_out[tier] = "responses withheld"
    mixed, kinds = {}, {}
    for kind, name in enumerate(STIMULI):
        parts = {tier: [i for i in trials if cache.stimulus_ids[i] == kind] for tier, trials in sets.items()}
        mixed |= {f"{tier}:{name}": part for tier, part in parts.items() if 0 < len(part) < len(sets[tier])}
        trials = sum((parts.get(tier, []) for tier in (MOVIE_TIERS if name == "movie" else BONUS_TIERS)), [])
        if trials and any(tier in sets for tier in BONUS_TIERS):
            kinds[name] = trials
    return sets | mixed | kinds, left_out


def fingerprint(subjects: Sequence[Subject], tiers: list[str], with_baselines: bool) -> str:
    """Of everything that the scores depend on: predictions, recordings, neurons, and settings."""
    settings = (VERSION, tiers, with_baselines, _settings(), BLOCK, SKIP)
    parts = [(s.cache.recording.fingerprint, s.neurons.tolist(), *s.responses.state) for s in subjects]
    return hashlib.sha256(repr((settings, parts)).encode()).hexdigest()


def _settings() -> tuple:
    return baselines.VIDEO_LAGS, baselines.BEHAVIOR_LAGS, baselines.COMPONENTS, baselines.PENALTIES


def fitted_baselines(subject: Subject, path: Path) -> baselines.Baselines:
    """Baselines fitted on the training tier; kept at `path` for as long as recording, neurons and settings last."""
    content = (VERSION_OF_BASELINES, subject.cache.recording.fingerprint, subject.neurons.tolist(), _settings())
    key = hashlib.sha256(repr(content).encode()).hexdigest()
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) == key:
                return baselines.Baselines.from_arrays({name: file[name] for name in file.files if name != "key"})
    trials = subject.cache.recording.trial_ids("train")
    fitted = baselines.fit_baselines(
        lambda i: subject.cache.trial(i, neurons=subject.neurons),
        trials,
        num_components=baselines.COMPONENTS,
        progress=f"mouse {subject.id}: baselines",
    )
    with io.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, key=np.array(key), **fitted.to_arrays())
    return fitted


def score_mouse(subject: Subject, sets: dict[str, list[int]], fitted: baselines.Baselines | None) -> pd.DataFrame:
    """One row per set of trials and neuron: SCORES, CEILINGS and BASELINES; NaN where a number does not exist."""
    distinct = list(dict.fromkeys(tuple(trials) for trials in sets.values()))  # a kind may be all there is of a tier
    correlations = running_correlations(subject, distinct, fitted)
    tables = dict(zip(distinct, map(partial(score_set, subject), distinct, correlations), strict=True))
    own = describe_neurons(subject)
    return pd.concat(
        [pd.concat([own.assign(tier=name), tables[tuple(trials)]], axis=1) for name, trials in sets.items()],
        ignore_index=True,
    )


def describe_neurons(subject: Subject) -> pd.DataFrame:
    """Who the twin's neurons are: mouse, row, unit id, depth in um and, on simulated mice, class of cell."""
    recording = subject.cache.recording
    truth = recording.directory / "truth" / "neurons.csv"
    cell_class = pd.read_csv(truth)["kind"].to_numpy()[subject.neurons] if truth.is_file() else ""
    return pd.DataFrame(
        {
            "mouse": subject.id,
            "neuron": subject.neurons,
            "unit_id": recording.unit_ids[subject.neurons],
            "depth_um": recording.coordinates[subject.neurons, 2],
            "cell_class": cell_class,
        }
    )


def score_set(subject: Subject, trials: tuple[int, ...], correlations: dict) -> pd.DataFrame:
    """Scores of every neuron on some trials, whose running correlations are known."""
    video_ids = subject.cache.video_ids[list(trials)]
    blocks = [
        score_block(subject, trials, video_ids, slice(start, start + BLOCK))
        for start in range(0, len(subject.neurons), BLOCK)
    ]
    table = pd.DataFrame({key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]})
    for key, stream in correlations.items():
        table[key] = stream.value()
    table["trials"], table["repeated_videos"] = len(trials), len(repeats.group_repeats(video_ids))
    return table.reindex(columns=["trials", "repeated_videos", *SCORES, *CEILINGS, *BASELINES])


def running_correlations(
    subject: Subject, sets: Sequence[tuple[int, ...]], fitted
) -> list[dict[str, accuracy.StreamingCorrelation]]:
    """Per set and prediction: correlation with all frames of all trials, reading every trial once."""
    N = len(subject.neurons)
    streams = [{} for _ in sets]
    members = {
        trial: [own for own, trials in zip(streams, sets, strict=True) if trial in trials]
        for trial in sorted(set().union(*sets))
    }
    for trial, owners in tqdm(
        members.items(), desc=f"mouse {subject.id}: scoring", unit="trial", leave=False, disable=None
    ):
        true = subject.recorded(trial, subject.neurons)
        for key, pred in predictions(subject, trial, fitted):
            for own in owners:
                own.setdefault(key, accuracy.StreamingCorrelation(N)).update(true, pred)
    return streams


def predictions(subject: Subject, trial: int, fitted) -> Iterator[tuple[str, np.ndarray]]:
    """(column, scored frames (N, T)) of twin, true rate and baselines for one trial."""
    yield "challenge_correlation", subject.scored(trial, subject.responses.read(trial))
    rates = subject.rates(trial)
    if rates is not None:
        yield "true_rate", rates
    if fitted is not None:
        for name, responses in fitted.predict(subject.cache.trial(trial, neurons=[])).items():
            yield f"baseline_{name}", subject.scored(trial, responses)


def score_block(subject: Subject, trials: Sequence[int], video_ids: np.ndarray, block: slice) -> dict[str, np.ndarray]:
    """Scores and ceilings that need all trials at once, for a block of the twin's neurons."""
    true = [subject.recorded(i, subject.neurons[block]) for i in trials]
    pred = [subject.scored(i, subject.responses.read(i, block)) for i in trials]
    rng = np.random.default_rng(0)
    return {
        "single_trial_correlation": accuracy.single_trial_correlation(true, pred),
        "correlation_to_average": accuracy.correlation_to_average(true, pred, video_ids),
        "normalized_correlation": accuracy.normalized_correlation(true, pred, video_ids),
        "pooled_normalized_correlation": accuracy.pooled_normalized_correlation(true, pred, video_ids),
        "feve": accuracy.feve(true, pred, video_ids),
        "msse": accuracy.msse(true, pred),
        "poisson_loss": accuracy.poisson_loss(true, pred),
        "oracle": ceiling.oracle(true, video_ids),
        "oracle_with_own_trial": ceiling.oracle(true, video_ids, include_own=True),
        "cc_max": ceiling.cc_max(true, video_ids),
        "cc_max_single_trial": ceiling.cc_max_single_trial(true, video_ids),
        "split_half_reliability": ceiling.split_half_reliability(true, video_ids, rng),
        "explainable_variance": repeats.explainable_variance(true, video_ids),
    }


def summarize_mouse(table: pd.DataFrame, seed: int = 0) -> dict:
    """Means over the neurons of one mouse and tier, each with its interval, numbers and reason for exclusions."""
    rng = np.random.default_rng(seed)
    score, bound = table["challenge_correlation"].to_numpy(), groups.ceiling_of(table)
    best = table[bound].to_numpy()
    summary = {
        "neurons": len(table),
        "trials": int(table["trials"].iloc[0]),
        "repeated_videos": int(table["repeated_videos"].iloc[0]),
    }
    for name in (*SCORES, *CEILINGS, *BASELINES):
        values = table[name].to_numpy()
        interval = asdict(stats.bootstrap(values, rng))
        excluded = accuracy.summarize(values, REASONS.get(name, "not defined"))
        summary[name] = interval | {"excluded": excluded.excluded, "reason": excluded.reason}
    summary["ceiling"] = bound
    summary["ratio_to_ceiling"] = asdict(stats.bootstrap_ratio(score, best, rng))
    excess = stats.bootstrap(score - best, rng)
    summary["beats_true_rate"] = bool(bound == "true_rate" and excess.low > 0)
    return summary


def summarize_mice(tables: list[pd.DataFrame], seed: int = 0) -> dict:
    """Over mice, for one tier: mean of the mice's means with an interval over animals; the official pooled score."""
    rng = np.random.default_rng(seed)
    summary = {"mice": len(tables)}
    for name in (*SCORES, *CEILINGS, *BASELINES):
        summary[name] = asdict(stats.hierarchical_bootstrap([table[name].to_numpy() for table in tables], rng))
    pooled = [table["challenge_correlation"].to_numpy() for table in tables]
    best = [table[groups.ceiling_of(table)].to_numpy() for table in tables]
    summary["ratio_to_ceiling"] = asdict(stats.hierarchical_ratio(pooled, best, rng))
    summary["challenge_correlation_neuron_weighted"] = accuracy.neuron_weighted(pooled)
    return summary


def summarize(neurons: pd.DataFrame) -> dict:
    """The content of evaluation_tiers.json from the table of neurons: per mouse and tier, and over mice per tier."""

    def nested(group: pd.DataFrame, by: str, summary: Callable) -> dict:
        return {str(key): summary(part) for key, part in group.groupby(by, sort=False)}

    per_mouse = nested(neurons, "mouse", lambda mouse: nested(mouse, "tier", summarize_mouse))
    over_mice = nested(
        neurons, "tier", lambda tier: summarize_mice([part for _, part in tier.groupby("mouse", sort=False)])
    )
    return {"mice": per_mouse, "all": over_mice}
