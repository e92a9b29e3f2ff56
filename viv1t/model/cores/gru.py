"""Rotation-equivariant convolutions and a convolutional GRU: the recurrent baseline of Sensorium 2023."""

import torch
from torch import nn

from viv1t.errors import UserError
from viv1t.model.cores.convolution import INPUTS, ConvolutionalCore, group_sparsity, laplace, over_frames
from viv1t.model.cores.equivariant import EquivariantConv2d, SharedBatchNorm2d
from viv1t.model.options import GRUConfig


class GRUCore(ConvolutionalCore):
    """Equivariant layers of every frame, then a convolutional GRU; an output frame depends on all before it.

    The first kernel is not padded, which cuts the margin of frames. Activations follow all equivariant layers but the
    last.
    """

    def __init__(self, config: GRUConfig, max_frame: int):
        super().__init__(config, max_frame)
        first, size = config.cnn_input_kernel, config.cnn_hidden_kernel
        self.grid = tuple(n - first + 1 for n in self.frame_size)
        if min(self.grid) < 1:
            raise UserError(
                f"--core_cnn_input_kernel {first} is larger than a frame: use one below {min(self.frame_size)}."
            )
        self.dim, width = config.rnn_size, config.cnn_filters * config.rotations
        shape = (config.cnn_filters, config.rotations)
        convolutions = [EquivariantConv2d(INPUTS[config.behavior_mode], *shape, first, padding=0, lifts=True)]
        convolutions += [
            EquivariantConv2d(width, *shape, size, padding=size // 2, lifts=False)
            for _ in range(config.cnn_layers - 1)
        ]
        self.layers = nn.ModuleList(
            EquivariantLayer(convolution, config, nonlinear=not config.linear and i < config.cnn_layers)
            for i, convolution in enumerate(convolutions, start=1)
        )
        self.rnn = ConvGRU(width, config.rnn_size, config.rnn_input_kernel, config.rnn_kernel)

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        return self.rnn(super().maps(video, behavior, pupil_center))

    def penalty(self) -> torch.Tensor | float:
        c, penalty = self.config, 0.0
        first, *others = (layer.convolution for layer in self.layers)
        if c.cnn_input_reg:
            penalty = penalty + c.cnn_input_reg * laplace(first.kernels())
        if c.cnn_hidden_reg:
            penalty = penalty + c.cnn_hidden_reg * sum(group_sparsity(other.kernels()) for other in others)
        if c.rnn_reg:
            penalty = penalty + c.rnn_reg * sum(p.abs().sum() for p in self.rnn.parameters() if p.dim() > 1)
        return penalty


class EquivariantLayer(nn.Module):
    def __init__(self, convolution: EquivariantConv2d, config: GRUConfig, nonlinear: bool):
        super().__init__()
        self.convolution = convolution
        self.norm = SharedBatchNorm2d(config.cnn_filters, momentum=config.momentum)
        self.activation = nn.ELU(inplace=True) if nonlinear else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return over_frames(lambda y: self.activation(self.norm(self.convolution(y))), x)


class ConvGRU(nn.Module):
    """Gated recurrent unit with convolutions for products (Ballas et al. 2016), its state zero at the start.

    z = sigmoid(W_z x + U_z h), r = sigmoid(W_r x + U_r h), c = tanh(W_c x + U_c (r h)), h <- (1 - z) h + z c.
    """

    def __init__(self, inputs: int, size: int, input_kernel: int, kernel: int):
        super().__init__()
        self.size = size
        self.inputs = nn.Conv2d(inputs, 3 * size, input_kernel, padding=input_kernel // 2)  # W of z, r, c
        self.gates = nn.Conv2d(size, 2 * size, kernel, padding=kernel // 2)  # U of z, r
        self.candidate = nn.Conv2d(size, size, kernel, padding=kernel // 2)  # U of c
        for convolution in (self.inputs, self.gates, self.candidate):
            with torch.no_grad():
                for part in convolution.weight.split(size):  # of one gate
                    (nn.init.xavier_normal_ if convolution is self.inputs else nn.init.orthogonal_)(part)
            nn.init.zeros_(convolution.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w, inputs) -> (B, T, h, w, size)."""
        driven = over_frames(self.inputs, x).permute(0, 1, 4, 2, 3)
        states, h = [], driven.new_zeros(len(x), self.size, *x.shape[2:4], dtype=torch.float32)
        h = h.contiguous(memory_format=torch.channels_last)
        for frame in driven.unbind(1):
            of_gates, of_candidate = frame.split((2 * self.size, self.size), dim=1)
            z, r = (of_gates + self.gates(h)).sigmoid().float().chunk(2, dim=1)
            c = (of_candidate + self.candidate(r * h)).tanh().float()
            h = torch.lerp(h, c, z)  # in float32: small changes add up
            states.append(h.permute(0, 2, 3, 1))
        return torch.stack(states, dim=1)
