"""What convolutional cores share: maps with channels last, recomputed layers, penalties of kernels.

Maps are (B, T, h, w, C) in memory throughout, so that a convolution of every frame (frames as batch) and one over time
at every place (places as width) are both channels-last 2-D convolutions of views: nothing is ever transposed.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from viv1t.errors import UserError
from viv1t.model.cores.core import Core, as_channels
from viv1t.model.options import CHANNELS

INPUTS = dict(zip(CHANNELS.words, (1, 3, 5), strict=True))  # input channels of a `--core_behavior_mode`


class ConvolutionalCore(Core):
    """Base of the convolutional cores: `layers`, one after the other, on frames with channels last."""

    layers: nn.ModuleList

    def maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        x = self.inputs(video, behavior, pupil_center)
        for layer in self.layers:
            x = self.run(layer, x)
        return x

    def inputs(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """Video and traces of `--core_behavior_mode`: (B, T, H, W, C)."""
        if video.shape[2] <= self.lost_frames:
            raise UserError(
                f"clips of {video.shape[2]} frames: this core's first {self.lost_frames} frames get no output. "
                "Use longer clips (--crop_frame)."
            )
        return torch.stack(as_channels(self.config.behavior_mode, video, behavior, pupil_center).unbind(1), dim=-1)

    def first_maps(self, video: torch.Tensor, behavior: torch.Tensor, pupil_center: torch.Tensor) -> torch.Tensor:
        """The maps of the first training step, for which batches are normalised by their own statistics."""
        norms = batch_norms(self)
        with frozen_statistics(self):
            for norm in norms:
                norm.train()
            maps = self(video, behavior, pupil_center)
            for norm in norms:
                norm.train(self.training)
        return maps

    def run(self, layer: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        """layer(*inputs), its activations kept for the backward pass or, if asked for, computed again in it."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return recomputed(layer, *inputs)
        return layer(*inputs)


def over_frames(layer: Callable, x: torch.Tensor) -> torch.Tensor:
    """A 2-D layer applied to every frame: (B, T, h, w, C) -> (B, T, h', w', C')."""
    y = layer(x.flatten(0, 1).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def over_time(layer: Callable, x: torch.Tensor) -> torch.Tensor:
    """A 2-D layer applied to frames x places, with kernels (k, 1): (B, T, h, w, C) -> (B, T', h, w, C')."""
    y = layer(x.flatten(2, 3).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).unflatten(2, x.shape[2:4])


def recomputed(layer: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """layer(*inputs) that keeps its inputs only; statistics of the batch count once."""

    def contexts():
        return contextlib.nullcontext(), frozen_statistics(layer)  # of the two passes

    return checkpoint(layer, *inputs, use_reentrant=False, context_fn=contexts)


def batch_norms(layer: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)]


@contextlib.contextmanager
def frozen_statistics(layer: nn.Module):
    """Batch normalisation in training leaves its running statistics as they are."""
    norms = batch_norms(layer)
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def laplace(weight: torch.Tensor) -> torch.Tensor:
    """Roughness of kernels (out, in, k, k): power of their Laplacian, relative to their own."""
    stencil = weight.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    edges = F.conv2d(weight.flatten(0, 1)[:, None], stencil, padding=1)
    return edges.square().sum() / weight.square().sum()


def group_sparsity(weight: torch.Tensor) -> torch.Tensor:
    """Mean norm of kernels (out, in, k, k), each of one input and one output: drives whole kernels to zero."""
    return torch.linalg.vector_norm(weight, dim=(-2, -1)).mean()
