"""What a run says while it trains: one line per epoch, RUN/log.csv, and Weights & Biases if asked."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from viv1t import io


@dataclass
class RunLog:
    """Rows of RUN/log.csv, one per epoch; the whole file is written anew each time."""

    run_dir: Path
    epochs: int
    verbose: int = 1
    wandb: object | None = None

    def header(self) -> None:
        if self.verbose:
            print(
                f"{'epoch':>9} {'train loss':>12} {'val loss':>12} {'val corr':>9} {'lr':>9} {'clipped':>7} "
                f"{'time':>7} {'at most':>8}"
            )

    def write(self, rows: list[dict]) -> None:
        """Save all rows and report the last: `time` of the epoch, and what all remaining ones would take."""
        io.write_table(self.run_dir / "log.csv", pd.DataFrame(rows))
        row = rows[-1]
        if self.verbose:
            mark = " *" if row["best"] else ""
            skipped = f"  {row['skipped']} steps skipped: gradient not finite" if row["skipped"] else ""
            left = duration(row["seconds"] * (self.epochs - row["epoch"]))
            print(
                f"{row['epoch']:4d}/{self.epochs:<4d} {row['train_loss']:12.2f} {row['val_loss']:12.2f} "
                f"{row['val_correlation']:9.4f} {row['lr']:9.2e} {row['clipped']:7d} {duration(row['seconds']):>7} "
                f"{left:>8}{mark}{skipped}"
            )
        if self.wandb is not None:
            self.wandb.log({key: value for key, value in row.items() if key != "best"}, step=row["epoch"])

    def close(self, summary: dict | None = None) -> None:
        if self.wandb is not None:
            self.wandb.summary.update(summary or {})
            self.wandb.finish()


def start_wandb(group: str | None, run_id: str | None, run_dir: Path, config: dict):
    """A Weights & Biases run, or None; the CSV log never depends on it. WANDB_MODE=offline works without network."""
    if group is None:
        return None
    try:
        import wandb
    except ImportError:
        print(f"--wandb {group}: wandb is not installed (pip install wandb); logging to {run_dir / 'log.csv'} only.")
        return None
    try:
        return wandb.init(
            project="viv1t", group=group, name=run_dir.name, id=run_id, dir=run_dir, config=config, resume="allow"
        )
    except (wandb.errors.Error, OSError) as error:
        print(f"--wandb {group}: {str(error).splitlines()[0]}; logging to {run_dir / 'log.csv'} only.")
        return None


def duration(seconds: float) -> str:
    """12.3s, 4m05s, 2h03m, 3d04h."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    if seconds < 86400:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
    return f"{int(seconds // 86400)}d{int(seconds % 86400 // 3600):02d}h"
