"""The published model written as a textbook would: the fixed yardstick for time and memory.

Patches are unfolded, dropout and drop-path masks are drawn for everything and multiplied, registers ride along,
every block is checkpointed on its own, and the readout samples all neurons x frames x channels at once. Same
parameters as `viv1t.model` (its state dict loads), same outputs.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class TextbookModel(nn.Module):
    """One mouse, default options (LayerNorm, rotary positions, ReLU, causal), around the modules of a built model."""

    def __init__(self, model, mouse: str):
        super().__init__()
        self.model, self.readout, self.shifter = model, model.readouts[mouse], model.shifters[mouse]
        self.output = model.output_activation[mouse]
        self.config, self.core = model.core.config, model.core
        self.autocast_dtype: torch.dtype | None = None
        self.grad_checkpointing = True

    def forward(self, video, behavior, pupil_center):
        with torch.autocast(video.device.type, dtype=torch.bfloat16, enabled=self.autocast_dtype is not None):
            x = self.tokens(video, behavior, pupil_center)
            x = self.transform(x)
        z = x.float().permute(0, 3, 1, 2).unflatten(3, self.core.grid)  # (B, D, T, h, w)
        return self.output(self.read(z, self.shifter(behavior, pupil_center)))

    def tokens(self, video, behavior, pupil_center):
        tokenizer, c = self.core.tokenizer, self.config
        embedding, k, s = tokenizer.tokenizer, self.config.spatial_patch_size, self.config.spatial_patch_stride
        traces = torch.cat([behavior, pupil_center], dim=1)
        image = torch.cat([video, traces[..., None, None].expand(-1, -1, -1, *video.shape[-2:])], dim=1)
        image = F.pad(image, (*embedding.pad, tokenizer.front, 0))
        patches = image.unfold(2, c.temporal_patch_size, 1).unfold(3, k, s).unfold(4, k, s)
        patches = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(2, 3)  # (B, T, P, K)
        x = tokenizer.norm(embedding.linear(embedding.norm(patches)))
        keep = torch.empty(x.shape[:-1], device=x.device).bernoulli_(1 - c.p_dropout).div_(1 - c.p_dropout)
        return x * keep[..., None] if self.training else x

    def transform(self, x):
        vivit = self.core.vivit
        B, T, P, D = x.shape
        x = torch.cat([x, vivit.reg_s_tokens.expand(B, T, -1, -1)], dim=2).flatten(0, 1)
        for block in vivit.spatial_transformer.blocks:
            x = self.run(block, x, P, False)
        x = x[:, :P].unflatten(0, (B, T)).transpose(1, 2)
        x = torch.cat([x, vivit.reg_t_tokens.expand(B, P, -1, -1)], dim=2).flatten(0, 1)
        for block in vivit.temporal_transformer.blocks:
            x = self.run(block, x, T, True)
        return x[:, :T].unflatten(0, (B, P)).transpose(1, 2)

    def run(self, block, x, positions: int, causal: bool):
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(self.block, block, x, positions, causal, use_reentrant=False)
        return self.block(block, x, positions, causal)

    def block(self, block, x, positions: int, causal: bool):
        c, h = self.config, self.config.num_heads
        inner = h * c.head_dim
        q, k, v, g = block.fused_linear(block.norm(x)).split([inner, inner, inner, c.ff_dim], dim=-1)
        q, k, v = (t.unflatten(-1, (h, c.head_dim)).transpose(1, 2) for t in (q, k, v))
        q, k = self.rotate(block, q, positions), self.rotate(block, k, positions)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        a = F.dropout(a, c.mha_dropout, self.training).transpose(1, 2).flatten(2)
        f = F.dropout(F.relu(g), c.ff_dropout, self.training)
        return x + self.drop_path(block.attn_out(a)) + self.drop_path(block.ff_out[2](f))

    def rotate(self, block, x, positions: int):
        rotary = block.rotary_position_embedding
        place = torch.arange(positions, device=x.device)[:, None]
        angle = (place * rotary.inv_freq).repeat(1, 2)
        scale = (rotary.scale ** ((place - rotary.length // 2) / 512)).repeat(1, 2)
        tokens, registers = x[:, :, :positions], x[:, :, positions:]
        turned = torch.cat([-tokens[..., x.shape[-1] // 2 :], tokens[..., : x.shape[-1] // 2]], dim=-1)
        tokens = (tokens * angle.cos() + turned * angle.sin()) * scale
        return torch.cat([tokens, registers.to(tokens.dtype)], dim=2).to(x.dtype)

    def drop_path(self, x):
        p = self.config.drop_path
        if not self.training or p == 0:
            return x
        return x * torch.empty(len(x), 1, 1, device=x.device).bernoulli_(1 - p).div_(1 - p)

    def read(self, z, shifts):
        B, T = z.shape[0], z.shape[2]
        maps = z.transpose(1, 2).flatten(0, 1)  # (B T, D, h, w)
        grid = self.readout.mu.expand(B * T, -1, -1)
        if self.training:
            noise = torch.randn(grid.shape, device=z.device)
            grid = grid + torch.einsum("ncd,rnd->rnc", self.readout.sigma[0], noise)
        grid = grid.clamp(-1, 1) + shifts.transpose(1, 2).reshape(-1, 1, 2)
        sampled = F.grid_sample(maps, grid[:, :, None], align_corners=True)[..., 0]  # (B T, D, N)
        y = torch.einsum("rdn,dn->rn", sampled, self.readout.features[0]) + self.readout.bias
        return y.unflatten(0, (B, T)).transpose(1, 2)
