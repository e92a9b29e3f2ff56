"""Show local contrast noise, or white noise, to a trained twin or to the simulated animals, to map receptive fields.

Each pattern is still: textured cells scattered over a grey screen, which drive simple and complex cells alike. White
noise is the published stimulus; complex cells answer to its square only.

reads   RUN/ckpt (or, with --animal, <data_dir>/<lab>/<mouse>/truth/animal.json)
writes  RUN/retinotopy/mouse<ID>.h5: responses (pattern, neuron), or the same below --results_dir. Goes on where it was
        stopped.
next    fit_aRFs.py; with another --gaze and --results_dir, compare_gaze.py, too
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from viv1t import cli, distributed
from viv1t.constants import FPS
from viv1t.experiment import Experiment, at_screen_centre, run
from viv1t.presentation import Timeline, Window
from viv1t.results import locate
from viv1t.stimulus.series import noise_pattern
from viv1t.subjects import add_subject_flags, open_subjects


@dataclass(frozen=True)
class Protocol:
    """Change the experiment here or with the flags; nothing below knows a number."""

    stimulus: str = "mask"
    patterns: int = 2000
    shown: int = 6  # frames; responses count from frame `start`: soon after onset, before feedback arrives
    start: int = 2
    seed: int = 1234


def get_parser() -> cli.Parser:
    parser, protocol = cli.Parser(__doc__), Protocol()
    add_subject_flags(parser)
    parser.add_argument("--results_dir", metavar="DIR", help="where responses go (default: RUN)")
    group = parser.add_argument_group("what is shown")
    group.add_argument("--stimulus", type=cli.Words("mask", "white"), default=protocol.stimulus, metavar="WORD",
                       help="local contrast noise (mask) or white noise (default: mask)")  # fmt: skip
    group.add_argument("--patterns", type=cli.number(int, 10), default=protocol.patterns, metavar="N",
                       help=f"how many (default: {protocol.patterns}; white noise needs 10,000 or more)")  # fmt: skip
    group.add_argument("--seed", type=cli.number(int, 0), default=protocol.seed, metavar="N",
                       help=f"of the noise (default: {protocol.seed})")  # fmt: skip
    return parser


def main(args) -> None:
    protocol = Protocol(stimulus=args.stimulus, patterns=args.patterns, seed=args.seed)

    def draw(monitor, condition, audience) -> np.ndarray:
        image = noise_pattern(monitor, protocol.stimulus, condition["pattern"], protocol.seed)
        return np.repeat(image[None], protocol.shown, axis=0)

    experiment = Experiment(
        pd.DataFrame({"pattern": np.arange(protocol.patterns)}),
        draw,
        Timeline(pattern=protocol.shown),
        Window(protocol.start / FPS, protocol.shown / FPS),
        {"experiment": "retinotopy", "protocol": asdict(protocol)},
    )
    with distributed.joined():
        for subject in open_subjects(args):
            path = locate(args.results_dir or args.output_dir, "retinotopy", subject.id)
            run(subject, experiment, at_screen_centre(subject), path, args.batch_size)


if __name__ == "__main__":
    cli.run(main, get_parser())
