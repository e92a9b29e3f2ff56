"""Cores by the names of `--core`."""

from viv1t.model.cores.vivit import ViViTCore

CORES = {"vivit": ViViTCore}
