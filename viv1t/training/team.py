"""Several processes that train one model, and stay one model.

Each holds the core and the readouts of some mice, and shows its share of every step's trials. Once a step the
gradients of the core are added up over all processes; those of a readout stay where it is, unless the trials of its
mouse are shared by several processes, which then add them up among themselves. What is saved is what a single process
saves, so a run can go on with any number of processes.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from viv1t import distributed
from viv1t.errors import UserError
from viv1t.model.build import Model
from viv1t.training.optimizers import total_norm

MOUSE_PARTS = ("shifters", "readouts", "output_activation")
Layout = dict[str, list[str]]  # group of the optimiser -> names of its parameters, in order


@dataclass(frozen=True)
class Share:
    """What a process does for one mouse: `rows` of each batch, and one `part` of `parts` of its validation."""

    rows: slice
    part: int
    parts: int


class Alone:
    """One process, which holds everything. shares: mouse -> what this process does for it."""

    def __init__(self, model: nn.Module, mouse_ids: Sequence[str] = ()):
        self.model, self.shares = model, dict.fromkeys(mouse_ids, Share(slice(None), 0, 1))
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())

    def reduce(self, loss: float) -> tuple[float, Tensor]:
        """Add up what each process has of a step's loss and gradients; returns the loss and the gradient's norm."""
        return loss, total_norm(self.model.parameters())

    def gather_weights(self) -> dict[str, Tensor]:
        """State of the whole model, on the process that writes it."""
        return self.model.state_dict()

    def own_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the state of the whole model, what this process holds."""
        return state

    def gather_optimizer(self, optimizer: torch.optim.Optimizer) -> dict:
        """State of the whole model's optimiser, on the process that writes it."""
        return optimizer.state_dict()

    def own_optimizer(self, state: dict) -> dict:
        """Of the state of the whole model's optimiser, what this process holds."""
        return state


class Team(Alone):
    """Several processes. Takes a model that is the same in all of them, and leaves this one its mice only."""

    def __init__(self, model: Model, mouse_ids: Sequence[str], batch_size: int):
        super().__init__(model)
        everyone = deal(mouse_ids, batch_size, distributed.size())
        self.shares = everyone[distributed.rank()]
        holders = {id: [rank for rank, shares in enumerate(everyone) if id in shares] for id in mouse_ids}
        self.groups = {id: distributed.group(ranks) for id, ranks in holders.items() if len(ranks) > 1}
        self.names, self.layout = list(model.state_dict()), layout(model)
        keep_mice(model, self.shares)
        self.own_layout = layout(model)
        self.parameters = defaultdict(list)  # of each mouse, and of the core (None)
        for name, parameter in model.named_parameters():
            self.parameters[mouse_of(name)].append(parameter)

    def reduce(self, loss: float) -> tuple[float, Tensor]:
        loss = float(distributed.gather_numbers([loss]).sum())
        for id, group in self.groups.items():
            if id in self.shares:
                distributed.add_gradients(self.parameters[id], group)
        core = [p for p in self.parameters[None] if p.requires_grad]
        distributed.add_gradients(core)
        others = [p for id, share in self.shares.items() if share.part == 0 for p in self.parameters[id]]
        squares = distributed.gather_numbers([float(total_norm(part)) ** 2 for part in (core, others)])
        return loss, torch.tensor(squares[0, 0] + squares[:, 1].sum(), dtype=torch.float32).sqrt()

    def gather_weights(self) -> dict[str, Tensor]:
        state = {name: value.cpu() for name, value in self.model.state_dict().items() if self._speaks_of(name)}
        whole = merged(distributed.collect(state))
        return {name: whole[name] for name in self.names if name in whole}

    def own_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if mouse_of(name) in (None, *self.shares)}

    def gather_optimizer(self, optimizer: torch.optim.Optimizer) -> dict:
        names = [name for group in self.layout.values() for name in group]
        state = renumbered(optimizer.state_dict(), self.own_layout, self.layout)
        spoken = {i: values for i, values in state["state"].items() if self._speaks_of(names[i])}
        return state | {"state": dict(sorted(merged(distributed.collect(spoken)).items()))}

    def own_optimizer(self, state: dict) -> dict:
        return renumbered(state, self.layout, self.own_layout)

    def _speaks_of(self, name: str) -> bool:
        """Whether a weight of the whole model is taken from this process."""
        id = mouse_of(name)
        return distributed.is_main() if id is None else self.shares[id].part == 0


def form_team(model: Model, mouse_ids: Sequence[str], batch_size: int) -> Alone:
    """The team of all processes there are; takes out of the model what this one does not need."""
    return Team(model, mouse_ids, batch_size) if distributed.size() > 1 else Alone(model, mouse_ids)


def deal(mouse_ids: Sequence[str], batch_size: int, processes: int) -> list[dict[str, Share]]:
    """For each process: mouse -> what it does for it.

    The trials of a step, mouse after mouse, are cut into runs whose lengths differ by one at most: nearly all work is
    the core's, which is the same for every trial. Only mice on a cut are held by several processes.
    """
    trials = [(id, row) for id in mouse_ids for row in range(batch_size)]
    if processes > len(trials):
        raise UserError(
            f"{processes} processes for the {len(trials)} trials of a step ({len(mouse_ids)} mice, --batch_size "
            f"{batch_size}): start at most {len(trials)}, or raise --batch_size."
        )
    cuts = [i * len(trials) // processes for i in range(processes + 1)]
    runs = [trials[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False)]
    parts = Counter(id for run in runs for id in {id for id, _ in run})
    shares, given = [], Counter()
    for run in runs:
        rows = {id: [row for other, row in run if other == id] for id, _ in run}
        shares.append({id: Share(slice(r[0], r[-1] + 1), given[id], parts[id]) for id, r in rows.items()})
        given.update(rows.keys())
    return shares


def keep_mice(model: Model, mouse_ids: Collection[str]) -> None:
    """Take all other mice out of a model."""
    for part in (getattr(model, name) for name in MOUSE_PARTS):
        for id in set(part) - set(mouse_ids):
            del part[id]


def mouse_of(name: str) -> str | None:
    """The mouse that a weight belongs to; None for the core."""
    part, _, rest = name.partition(".")
    return rest.split(".")[0] if part in MOUSE_PARTS else None


def layout(model: Model) -> Layout:
    """What an optimiser of this model numbers in this order."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {group: [names[p] for p in parameters] for group, parameters in model.parameter_groups().items()}


def renumbered(state: dict, old: Layout, new: Layout) -> dict:
    """State of an optimiser whose parameters are numbered by another layout; those it lacks are left out."""
    names = [name for group in old.values() for name in group]
    numbers = {name: i for i, name in enumerate(name for group in new.values() for name in group)}
    return {
        "state": {numbers[names[i]]: values for i, values in state["state"].items() if names[i] in numbers},
        "param_groups": [
            group | {"params": [numbers[name] for name in new[group["name"]]]} for group in state["param_groups"]
        ],
    }


def merged(parts: Iterable[dict]) -> dict:
    return {key: value for part in parts for key, value in part.items()}
