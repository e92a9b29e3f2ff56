"""Draw how alike the tuning of two neurons is, over their distance in cortex.

reads   RUN/tuning_similarity_<source>.csv (estimate_tuning_similarity.py): gratings; or, with --stimulus gabors, those
        of recording, twin and animal that are there
writes  RUN/figures/tuning_similarity_<stimulus>.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

from viv1t import cli
from viv1t.plotting import style, tuning
from viv1t.results import locate, require

SOURCES = {"gratings": ("gratings",), "gabors": ("recording", "twin", "animal")}
TUNINGS = ("orientation", "direction")


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--output_dir", required=True, metavar="RUN", help="folder with tuning_similarity_<source>.csv"
    )
    words = cli.Words(*SOURCES)
    parser.add_argument("--stimulus", type=words, default="gratings", metavar="WORD", help=f"{words} (default: 0)")
    return parser


def main(args) -> None:
    run_dir, sources = Path(args.output_dir), SOURCES[args.stimulus]
    present = [name for name in sources if locate(run_dir, f"similarity_{name}").is_file()] or sources[:1]
    tables = [pd.read_csv(require(run_dir, f"similarity_{name}"), dtype={"mouse": str}) for name in present]
    means = pd.concat([mean_of_mice(table) for table in tables], ignore_index=True)
    fig = draw(means)
    told = [
        f"{label}: {', '.join(f'{row.neurons} {row.tuning}' for row in own.drop_duplicates('tuning').itertuples())}"
        for label, own in means.groupby("label", sort=False)
    ]
    mice = tables[0]["mouse"].nunique()
    caption = (
        f"Correlation of the tuning curves of two neurons over their distance in cortex ({args.stimulus}), mean of "
        f"{mice} {'mouse' if mice == 1 else 'mice'}; pairs that may be one cell in two planes are left out. Left: "
        "distance in three dimensions; others: horizontal distance of pairs whose depths differ as said. Dashed: mean "
        f"of all pairs. Intervals: 95 %, bootstrap over the neurons of these mice. Neurons: {'; '.join(told)}."
    )
    for path in style.save(fig, run_dir / "figures" / f"tuning_similarity_{args.stimulus}", means.round(6), caption):
        print(path)


def mean_of_mice(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over mice of each bin that all have; half intervals add up like those of independent means."""
    keys = ["label", "tuning", "depth_low", "depth_high", "low", "high"]
    mice = table["mouse"].nunique()
    table = table.assign(down=(table["mean"] - table["ci_low"]) ** 2, up=(table["ci_high"] - table["mean"]) ** 2)
    groups = table.dropna(subset=["mean"]).groupby(keys, sort=False, dropna=False)
    mean = groups[["distance", "mean", "chance"]].mean()
    total = groups[["down", "up", "neurons", "n"]].sum()
    half = np.sqrt(total[["down", "up"]]) / mice
    mean = mean.assign(ci_low=mean["mean"] - half["down"], ci_high=mean["mean"] + half["up"])
    return mean.join(total[["neurons", "n"]])[groups.size() == mice].reset_index()


def draw(means: pd.DataFrame):
    depths = means[["depth_low", "depth_high"]].drop_duplicates().to_numpy()
    fig, axes = style.figure(len(TUNINGS), len(depths), height=115, below=8, sharex=True, sharey="row")
    for row, name in zip(axes, TUNINGS, strict=True):
        for ax, (shallow, deep) in zip(row, depths, strict=True):
            own = means[(means["tuning"] == name) & (means["depth_low"].fillna(-1) == np.nan_to_num(shallow, nan=-1))]
            for label, line in own.groupby("label", sort=False):
                values = line[["distance", "mean", "ci_low", "ci_high"]].to_numpy().T
                tuning.similarity_vs_distance(ax, *values, float(line["chance"].iloc[0]), label)
            ax.set_ylabel("")
            ax.set_title("3-D" if np.isnan(shallow) else f"Δdepth {shallow:g}-{deep:g} µm", loc="left")
        row[0].set_ylabel(f"{name} tuning,\ncorrelation")
    for ax in axes[0]:
        ax.set_xlabel("")
    handles = dict(zip(*axes[0, 0].get_legend_handles_labels()[::-1], strict=True))  # chance once
    fig.legend(handles.values(), handles.keys(), loc="lower left", ncols=len(handles))
    for ax, text in zip(axes.flat, "abcdefghij", strict=False):
        style.letter(ax, text)
    return fig


if __name__ == "__main__":
    cli.run(main, get_parser())
