"""Plain 2-D convolutions of every frame."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from viv1t.model.cores.convolution import INPUTS, ConvolutionalCore, group_sparsity, laplace, over_frames
from viv1t.model.options import Stacked2dConfig

HEADS = 4
BLOCK = 6, 8  # rows and columns of queries that share their keys
CHUNK_FRAMES = 10  # whose attention weights are in memory together


class Stacked2dCore(ConvolutionalCore):
    """Convolution, batch normalisation and ELU, a few times (Lurz et al. 2021); an output frame depends on that frame.

    Kernels are padded, so that maps keep the size of frames. With `skip`, layers also see outputs of earlier layers.
    """

    def __init__(self, config: Stacked2dConfig, max_frame: int):
        super().__init__(config, max_frame)
        D, make = config.hidden_dim, CONVOLUTIONS[config.convolution]
        first = full(INPUTS[config.behavior_mode], D, config.input_kernel)
        seen = [D * min(i, 1 + config.skip) for i in range(1, config.num_layers)]
        self.layers = nn.ModuleList(
            Layer(convolution, D, config)
            for convolution in (first, *(make(inputs, D, config.hidden_kernel) for inputs in seen))
        )
        self.dim, self.grid = D, self.frame_size

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        x = self.inputs(video, behavior, pupil_center)
        outputs = [self.run(self.layers[0], x)]
        for layer in self.layers[1:]:
            seen = outputs[-1 - self.config.skip :]
            outputs.append(self.run(layer, torch.cat(seen, dim=-1) if len(seen) > 1 else seen[0]))
        return outputs[-1]

    def penalty(self) -> torch.Tensor | float:
        c, penalty = self.config, 0.0
        if c.reg_laplace:
            penalty = penalty + c.reg_laplace * laplace(self.layers[0].convolution.weight)
        if c.reg_group:
            kernels = [m.weight for m in self.layers[1:].modules() if isinstance(m, nn.Conv2d)]
            penalty = penalty + c.reg_group * sum(map(group_sparsity, kernels))
        return penalty


class Layer(nn.Module):
    def __init__(self, convolution: nn.Module, outputs: int, config: Stacked2dConfig):
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(outputs, momentum=config.momentum)
        self.activation = nn.Identity() if config.linear else nn.ELU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return over_frames(lambda y: self.activation(self.norm(self.convolution(y))), x)


def full(inputs: int, outputs: int, size: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


def separable(inputs: int, outputs: int, size: int) -> nn.Module:
    """A convolution of every channel, then a mixture of channels at every place."""
    depthwise = nn.Conv2d(inputs, inputs, size, padding=size // 2, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False))


class LocalAttention(nn.Module):
    """Every pixel attends to those under a kernel (Ramachandran et al. 2019); (n, inputs, H, W) -> (n, outputs, H, W).

    Logits are products of queries and keys plus a bias learnt for every place of the kernel. Beyond the border, keys
    and values are zero, as in a convolution. Blocks of queries share a block of keys with a margin (Vaswani et al.
    2021), so that all are matrix products; weights are computed again in the backward pass.
    """

    def __init__(self, inputs: int, outputs: int, size: int):
        super().__init__()
        self.heads, self.margin = HEADS if outputs % HEADS == 0 else 1, size // 2
        self.projection = nn.Linear(inputs, 3 * outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.heads, size * size))
        rows, columns = (
            torch.arange(n + 2 * self.margin) - torch.arange(n)[:, None] for n in BLOCK
        )  # place under the kernel of each key for each query
        dy, dx = rows[:, None, :, None], columns[None, :, None, :]
        inside = (dy >= 0) & (dy < size) & (dx >= 0) & (dx < size)
        self.register_buffer("place", torch.where(inside, dy * size + dx, size * size).flatten(2).flatten(0, 1), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.projection(x.permute(0, 2, 3, 1))  # (n, H, W, 3 outputs)
        outside = self.bias.new_full((self.heads, 1), float("-inf"))
        bias = torch.cat([self.bias, outside], dim=1)[:, self.place].to(qkv.dtype)  # (heads, queries, keys)
        parts = [self.remembered(part, bias) for part in qkv.split(CHUNK_FRAMES)]
        return torch.cat(parts).permute(0, 3, 1, 2)

    def remembered(self, qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.attend, qkv, bias, use_reentrant=False) if qkv.requires_grad else self.attend(qkv, bias)

    def attend(self, qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(n, H, W, 3 D) -> (n, H, W, D)."""
        (rows, columns), m = BLOCK, self.margin
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 2, 4, 5)  # each (n, H, W, heads, d)
        q = q.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).permute(0, 1, 3, 5, 2, 4, 6)
        k, v = (
            F.pad(x, (0, 0, 0, 0, m, m, m, m)).unfold(1, rows + 2 * m, rows).unfold(2, columns + 2 * m, columns)
            for x in (k, v)
        )  # (n, H / rows, W / columns, heads, d, keys down, keys across)
        y = F.scaled_dot_product_attention(q.flatten(4, 5), k.flatten(5).mT, v.flatten(5).mT, attn_mask=bias)
        y = y.unflatten(4, (rows, columns)).permute(0, 1, 4, 2, 5, 3, 6)
        return y.flatten(5).flatten(3, 4).flatten(1, 2)


CONVOLUTIONS = {"full": full, "separable": separable, "attention": LocalAttention}
