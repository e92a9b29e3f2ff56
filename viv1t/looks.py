"""What one mouse's neurons attend to, on disk between the script that looks into a twin and those that draw it."""

import io as memory
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from viv1t import io
from viv1t.errors import UserError
from viv1t.geometry import Monitor

PER_NEURON = ("neurons", "z_um", "shares", "attention", "gradient", "lags")
NAMES = ("sources", "parts")


@dataclass(frozen=True)
class Looks:
    """n neurons in C contrasts x K kinds of stimuli; means over patterns and times.

    about: who was shown what, as plain values, among them the `mouse`, the `monitor` and the `protocol`; sources (S,):
    names of what is shared out, attention rolled out, gradient, and single heads; parts (P,): names of parts of the
    screen; neurons (n,): rows of the recording; z_um (n,); shares (n, C, K, S, P): in multiples of uniform;
    attention, gradient (n, C, K, side, side): maps around the field, NaN off the frame; lags (n, C, K, L): share of
    each lag in frames, L = 0 for twins that do not attend in time; stimuli (K, H, W): grey levels of the first frames
    at the highest contrast, as the first neuron sees them.
    """

    about: dict
    sources: list[str]
    parts: list[str]
    neurons: np.ndarray
    z_um: np.ndarray
    shares: np.ndarray
    attention: np.ndarray
    gradient: np.ndarray
    lags: np.ndarray
    stimuli: np.ndarray

    @property
    def mouse(self) -> str:
        return self.about["mouse"]

    @property
    def contrasts(self) -> list[float]:
        """Ascending."""
        return self.about["protocol"]["contrasts"]

    @property
    def kinds(self) -> list[str]:
        return self.about["protocol"]["kinds"]

    @property
    def timed(self) -> bool:
        """Whether the twin attends in time."""
        return self.lags.shape[-1] > 0

    @property
    def monitor(self) -> Monitor:
        return Monitor(**self.about["monitor"])

    @classmethod
    def joined(cls, looks: Sequence["Looks"]) -> "Looks":
        """All neurons of several, one after the other; the rest is that of the first."""
        return replace(
            looks[0], **{name: np.concatenate([getattr(one, name) for one in looks]) for name in PER_NEURON}
        )

    def write(self, path: Path) -> None:
        told = json.dumps({name: getattr(self, name) for name in ("about", *NAMES)}, sort_keys=True)
        content = memory.BytesIO()  # the same content gives the same bytes
        np.savez(content, told=np.array(told), **{name: getattr(self, name) for name in (*PER_NEURON, "stimuli")})
        with io.replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    @classmethod
    def read(cls, path: Path) -> "Looks":
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "told"}
                looks = cls(**json.loads(str(file["told"])), **arrays)
            looks.require_shapes()
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"{path}: not a file of attention ({reason}). Delete it and make it again.") from None
        return looks

    def require_shapes(self) -> None:
        """ValueError unless all arrays are of the same neurons and conditions."""
        shown = len(self.neurons), len(self.contrasts), len(self.kinds)
        for name in PER_NEURON[2:]:
            if getattr(self, name).shape[:3] != shown:
                raise ValueError(f"{name} {getattr(self, name).shape} of {shown[0]} neurons, {shown[1:]} conditions")
        if self.shares.shape[3:] != (len(self.sources), len(self.parts)) or len(self.stimuli) != shown[2]:
            raise ValueError(f"shares {self.shares.shape} and stimuli {self.stimuli.shape} do not match their names")
