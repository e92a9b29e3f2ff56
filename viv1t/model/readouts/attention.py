"""Attention readout: every neuron has a query that attends to the places of the map (Pierzchlewicz et al. 2023)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from viv1t.model.options import AttentionConfig
from viv1t.model.positions import sincos_2d
from viv1t.model.readouts.readout import Readout, in_chunks

DROPOUT = 0.1  # of maps and their position codes, as published


class AttentionReadout(Readout):
    """y_n = f_n . sum_s softmax_s(q_n . k_s / sqrt(D)) v_s + b_n over the places s of a map.

    Keys and values (E each) are a linear map of the D channels plus a fixed code of row and column, for maps of any
    shape. Parameters queries and features (N, E), bias (N,), and to_kv (2 E, D), which every mouse has its own of:
    the published readout shares it between mice, ours keeps all that a mouse owns in its readout. What is attended to
    depends on what is shown; gaze does not move it.
    """

    def __init__(
        self,
        config: AttentionConfig,
        dim: int,
        grid: tuple[int, int],
        coordinates: np.ndarray,
        mean_response: np.ndarray | None,
    ):
        super().__init__(config, dim, grid, coordinates, mean_response)
        code = sincos_2d(*grid, dim)
        self.register_buffer("code", F.pad(code, (0, dim - code.shape[1])), persistent=False)  # (h w, D)
        self.to_kv = nn.Linear(dim, 2 * config.emb_dim, bias=False)
        self.queries = nn.Parameter(torch.randn(self.num_neurons, config.emb_dim))
        self.features = nn.Parameter(torch.full((self.num_neurons, config.emb_dim), 1 / config.emb_dim))
        self.bias = self.make_bias(mean_response)

    def forward(
        self, z: torch.Tensor, shifts: torch.Tensor | None = None, neurons: torch.Tensor | None = None
    ) -> torch.Tensor:
        queries, features = (x if neurons is None else x[neurons] for x in (self.queries, self.features))

        def read(maps: torch.Tensor) -> torch.Tensor:
            k, v = self.to_kv(F.dropout(maps + self.code, DROPOUT, self.training)).chunk(2, dim=-1)  # (R, h w, E)
            q = queries.expand(len(maps), -1, -1)
            attended = F.scaled_dot_product_attention(q, k, v, scale=self.dim**-0.5)  # (R, N, E)
            return torch.einsum("rne,ne->rn", attended, features)

        held = queries.numel() + 2 * len(self.code) * self.config.emb_dim
        y = in_chunks(read, held, z.flatten(2, 3).flatten(0, 1))
        return self.with_bias(y.unflatten(0, z.shape[:2]), neurons)
