"""Tables of scores with intervals for the terminal and for papers: as text, CSV or LaTeX."""

from collections.abc import Sequence

import pandas as pd

FORMATS = ("text", "csv", "latex")


def layout(table: pd.DataFrame, scores: Sequence[str], format: str) -> str:
    """A table as printed. Scores are four columns `<score>_mean`, `_low`, `_high`, `_n` each; the others are keys.

    Text and LaTeX: a cell `mean [low, high]` for every score, with the number of neurons behind it, in parentheses,
    where that is not the number in the column `neurons`.
    """
    if format == "csv":
        return table.to_csv(index=False).rstrip("\n")
    text = cells(table, scores, {"text": "-", "latex": "--"}[format])
    return text.to_string(index=False) if format == "text" else _latex(text, len(scores) + 1)


def cells(table: pd.DataFrame, scores: Sequence[str], missing: str) -> pd.DataFrame:
    """The keys of a table and one column of text for each score; see `layout`."""
    keys = [name for name in table if name.rpartition("_")[0] not in scores]
    return table[keys].assign(**{name: [_cell(row, name, missing) for _, row in table.iterrows()] for name in scores})


def _cell(row: pd.Series, score: str, missing: str) -> str:
    mean, low, high, n = (row[f"{score}_{key}"] for key in ("mean", "low", "high", "n"))
    if pd.isna(mean):
        return missing
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]" + (f" ({n:.0f})" if n != row["neurons"] else "")


def _latex(cells: pd.DataFrame, numbers: int) -> str:
    """A tabular environment in the packages every LaTeX has; the last `numbers` columns are aligned to the right."""
    lines = [" & ".join(_escaped(value) for value in row) + r" \\" for row in cells.to_numpy()]
    head = " & ".join(name.replace("_", " ") for name in cells) + r" \\"
    columns = "l" * (cells.shape[1] - numbers) + "r" * numbers
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *lines, r"\hline", r"\end{tabular}"]
    )


def _escaped(value) -> str:
    return str(value).replace("_", r"\_").replace("µm", r"$\mu$m")
