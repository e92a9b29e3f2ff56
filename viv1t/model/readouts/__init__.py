"""Readouts by the names of `--readout`."""

from viv1t.model.readouts.attention import AttentionReadout
from viv1t.model.readouts.depth_gaussian import DepthGaussianReadout
from viv1t.model.readouts.factorized import FactorizedReadout
from viv1t.model.readouts.gaussian import GaussianReadout
from viv1t.model.readouts.pooled import ConvReadout, LinearReadout
from viv1t.model.readouts.random import RandomReadout

READOUTS = {
    "gaussian": GaussianReadout,
    "depth-gaussian": DepthGaussianReadout,
    "factorized": FactorizedReadout,
    "attention": AttentionReadout,
    "conv": ConvReadout,
    "linear": LinearReadout,
    "random": RandomReadout,
}
