"""Readouts by the names of `--readout`."""

from viv1t.model.readouts.gaussian import GaussianReadout

READOUTS = {"gaussian": GaussianReadout}
