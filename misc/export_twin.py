"""Write a trained twin as two files to share: its arrays, and what they are, with a model card. No pickle in either.

The folder opens like a run: predict.py, stream.py and all analyses take it as --output_dir.

reads   RUN/ckpt/best.pt, RUN/config.json, RUN/log.csv, RUN/evaluation_tiers.json if it was scored
writes  FOLDER/twin.npz, FOLDER/twin.json, FOLDER/config.json
"""

from pathlib import Path

import pandas as pd
import torch

from viv1t import __version__, cli, io
from viv1t.checkpoint import export
from viv1t.results import locate


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder to export")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="folder to write")
    parser.add_argument("--name", help="of the twin (default: that of the run folder)")
    parser.add_argument(
        "--data", default="", metavar="TEXT", help="what it was trained on; for simulated mice the command"
    )
    parser.add_argument("--command", default="", metavar="TEXT", help="how it was trained")
    return parser


def main(args) -> None:
    run_dir, folder = Path(args.output_dir), Path(args.to)
    card = {
        "name": args.name or run_dir.resolve().name,
        "data": args.data,
        "command": args.command,
        "scores": scores(run_dir),
        "training": training(run_dir),
        "viv1t": __version__,
        "torch": torch.__version__,
    }
    export(run_dir, folder, card)
    for path in sorted(folder.glob("twin.*")):
        print(f"{path}: {path.stat().st_size / 2**20:.2f} MB")


def scores(run_dir: Path) -> dict:
    """Tier -> mouse -> correlation, ceiling and their ratio, of a run that was scored."""
    path = locate(run_dir, "evaluation")
    if not path.is_file():
        return {}
    told = {}
    for mouse, tiers in io.read_json(path)["mice"].items():
        for tier, values in tiers.items():
            kept = {"challenge_correlation": values["challenge_correlation"]["mean"]}
            kept |= {"ceiling": values[values["ceiling"]]["mean"], "ratio": values["ratio_to_ceiling"]["mean"]}
            told.setdefault(tier, {})[mouse] = {name: round(value, 4) for name, value in kept.items()}
    return told


def training(run_dir: Path) -> dict:
    path = locate(run_dir, "log")
    if not path.is_file():
        return {}
    log = pd.read_csv(path)
    best = log.loc[log["val_correlation"].idxmax()]
    return {
        "epochs": int(log["epoch"].max()),
        "best_epoch": int(best["epoch"]),
        "validation_correlation": round(float(best["val_correlation"]), 4),
        "seconds": round(float(log["seconds"].sum())),
    }


if __name__ == "__main__":
    cli.run(main, get_parser())
