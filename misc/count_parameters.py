"""Count the parameters of a twin, part by part.

reads   RUN/ckpt/best.pt, or a run of the public implementation
writes  RUN/parameters.csv
"""

from pathlib import Path

import pandas as pd

from viv1t import cli, io
from viv1t.inference import load_twin

PARTS = {  # where names of parameters begin -> part; the first that fits
    "core.tokenizer": "core: tokeniser and positions",
    "core.vivit.spatial_transformer": "core: spatial transformer",
    "core.vivit.reg_s_tokens": "core: spatial transformer",
    "core.vivit.temporal_transformer": "core: temporal transformer",
    "core.vivit.reg_t_tokens": "core: temporal transformer",
    "core": "core: other",
    "shifters": "shifter of mouse {mouse}",
    "readouts": "readout of mouse {mouse}",
    "output_activation": "output activation of mouse {mouse}",
}


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    parser.add_argument("--data_dir", help="folder of the recordings; for runs of the public implementation only")
    return parser


def main(args) -> None:
    twin = load_twin(args.output_dir, "cpu", data_dir=args.data_dir)
    table = count(dict(twin.model.named_parameters()))
    print(table.to_string(index=False, formatters={"parameters": "{:,}".format, "MB": "{:.3f}".format}))
    path = Path(args.output_dir) / "parameters.csv"
    io.write_table(path, table)
    print(path)


def count(parameters: dict) -> pd.DataFrame:
    """One row per part, in the order of the model, and the total; MB = 10^6 bytes as stored."""
    rows = [
        {"part": part_of(name), "parameters": p.numel(), "MB": p.nbytes / 1e6, "tensors": 1}
        for name, p in parameters.items()
    ]
    table = pd.DataFrame(rows).groupby("part", sort=False, as_index=False).sum()
    return pd.concat([table, pd.DataFrame([{"part": "total"} | table.drop(columns="part").sum().to_dict()])]).astype(
        {"parameters": int, "tensors": int}
    )


def part_of(name: str) -> str:
    part = next(part for start, part in PARTS.items() if name.startswith(start))
    return part.format(mouse=name.split(".")[1])


if __name__ == "__main__":
    cli.run(main, get_parser())
