"""Draw how training went: loss and validation correlation, epoch by epoch.

reads   RUN/log.csv (train.py)
writes  RUN/figures/training.{pdf,png,csv}
next    report.py
"""

from pathlib import Path

import pandas as pd

from viv1t import cli
from viv1t.errors import UserError
from viv1t.plotting import panels, style
from viv1t.results import require


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder with log.csv")
    return parser


def main(args) -> None:
    run_dir = Path(args.output_dir)
    log = pd.read_csv(require(run_dir, "log"))
    if log.empty or not {"epoch", "train_loss", "val_loss", "val_correlation"} <= set(log):
        raise UserError(f"{run_dir / 'log.csv'}: not the log of train.py, or without a finished epoch.")
    fig, axes = style.figure(1, 3, height=58)
    drawn = {"train_loss": "training loss", "val_loss": "validation loss", "val_correlation": "validation correlation"}
    for ax, text, (column, label) in zip(axes[0], "abc", drawn.items(), strict=True):
        measured = log.dropna(subset=column)  # --eval_every may skip validations
        panels.curve(ax, measured["epoch"], measured[column], style.BLUE)
        ax.set_ylabel(label)
        ax.set_xlabel("epoch")
        style.letter(ax, text)
    best = int(log["val_correlation"].idxmax())
    axes[0, 2].plot(log["epoch"][best], log["val_correlation"][best], "o", color=style.VERMILION, markersize=5)
    axes[0, 2].set_title(f"best: {log['val_correlation'][best]:.3f} in epoch {log['epoch'][best]}", loc="left")
    caption = (
        "Training: losses as the optimiser and the log see them, and the mean challenge correlation on validation."
    )
    for path in style.save(fig, run_dir / "figures" / "training", log, caption):
        print(path)


if __name__ == "__main__":
    cli.run(main, get_parser())
