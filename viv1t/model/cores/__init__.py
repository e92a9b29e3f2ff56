"""Cores by the names of `--core`."""

from viv1t.model.cores.baselines import LargeRandomCore, LinearCore, RandomCore
from viv1t.model.cores.bvivit import BViViTCore
from viv1t.model.cores.dwise import DwiseCore
from viv1t.model.cores.fcnn import FCNNCore
from viv1t.model.cores.gru import GRUCore
from viv1t.model.cores.stacked2d import Stacked2dCore
from viv1t.model.cores.v1t import V1TCore
from viv1t.model.cores.vivit import ViViTCore

CORES = {
    "vivit": ViViTCore,
    "v1t": V1TCore,
    "bvivit": BViViTCore,
    "dwise": DwiseCore,
    "fcnn": FCNNCore,
    "gru_baseline": GRUCore,
    "stacked2d": Stacked2dCore,
    "linear": LinearCore,
    "random": RandomCore,
    "large_random": LargeRandomCore,
}
