"""What each shortcut of a training step saves: milliseconds of the plain formulation and of ours, side by side.

Shapes are those of the default ViViT: a chunk of 6,000 tokens as stochastic depth leaves it, 60 frames for tokeniser
and readout. Forward and backward unless stated; both run in turns in one process, and the lower quartile is shown.

    python benchmarks/parts.py             # about a minute on two cores
    python benchmarks/parts.py --profile   # where the time of a bfloat16 block goes, on one thread
"""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import torch
from textbook import TextbookModel
from torch.nn import functional as F

from viv1t import cli
from viv1t.data.mouse import Mouse
from viv1t.device import choose_device
from viv1t.model import ModelConfig, build_model
from viv1t.model.attention import fused_attention, rotated_heads
from viv1t.model.layers import Dropout

HEADS, WIDTH, FRAMES, NEURONS = 2, 80, 60, 7500
Pair = tuple[
    Callable[[], torch.Tensor], Callable[[], torch.Tensor]
]  # plain, ours; each returns what is differentiated


def main(args) -> None:
    choose_device("cpu")
    torch.manual_seed(0)
    if args.profile:
        profile()
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("| part | plain ms | ours ms | ratio |\n|---|---|---|---|")
    for name, pair in parts():
        plain, ours = milliseconds(pair, args.repeats)
        print(f"| {name} | {plain:.1f} | {ours:.1f} | {plain / ours:.1f}x |", flush=True)


def milliseconds(pair: Pair, repeats: int) -> tuple[float, float]:
    times = ([], [])
    for _ in range(repeats + 1):
        for work, spent in zip(pair, times, strict=True):
            start = time.perf_counter()
            y = work()
            if y.requires_grad:
                y.sum().backward()
            spent.append(1000 * (time.perf_counter() - start))
    return tuple(float(np.quantile(spent[1:], 0.25)) for spent in times)


def parts():
    """(name, (plain, ours)) of every shortcut."""
    for name, R, n, causal in (("space", 6, 600, False), ("time", 11, 300, True)):
        for dtype in (torch.bfloat16, torch.float32):
            yield f"rotation and attention in {name}, {kind(dtype)}", attention(R, n, causal, dtype)
    x = torch.randn(3400, 224, dtype=torch.bfloat16, requires_grad=True)
    dropout = Dropout(0.21)
    yield "dropout, bfloat16", (lambda: F.dropout(x, 0.21), lambda: dropout(x))
    model, textbook, inputs = models("masked")
    yield (
        "tokeniser, forward, float32",
        (
            no_grad(lambda: textbook.tokens(*inputs)),
            no_grad(lambda: model.core.tokenizer(*inputs)),
        ),
    )
    z = torch.randn(1, FRAMES, *model.core.grid, model.core.dim, requires_grad=True)
    shifts = torch.zeros(1, 2, FRAMES)
    yield (
        "readout, float32",
        (
            lambda: textbook.read(z.permute(0, 4, 1, 2, 3), shifts),
            lambda: model.readouts["A"](z, shifts),
        ),
    )
    blocks = [models(mode)[0].train().core.vivit.spatial_transformer.blocks[0] for mode in ("masked", "bernoulli")]
    tokens = torch.randn(10, 600, model.core.dim, requires_grad=True)
    yield "stochastic depth, one block, float32", tuple(lambda block=block: block(tokens) for block in blocks)


KINDS = {
    "attention, forward": ("scaled_dot_product",),
    "attention, products of the backward pass": ("aten::bmm",),
    "attention, softmax": ("softmax",),
    "linear maps": ("aten::mm",),
    "normalisation": ("layer_norm",),
}


def profile() -> None:
    """Share of each kind of work in one spatial block as it is trained: forward, again with a graph, and backward."""
    torch.set_num_threads(1)
    block = models("fixed")[0].train().core.vivit.spatial_transformer.blocks[0]
    tokens = torch.randn(10, 600, 112, requires_grad=True)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                block(tokens)
            y = block(tokens)
        y.sum().backward()

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            step()
    events = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total, told = sum(events.values()), 0.0
    print(f"one block, {total / 5000:.0f} ms on one thread\n| kind of work | share |\n|---|---|")
    for name, words in KINDS.items():
        spent = sum(time for key, time in events.items() if any(word in key for word in words))
        told += spent
        print(f"| {name} | {100 * spent / total:.0f} % |")
    print(f"| elementwise work and copies | {100 * (1 - told / total):.0f} % |")


def kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def no_grad(work: Callable) -> Callable:
    return torch.no_grad()(work)


def attention(R: int, n: int, causal: bool, dtype: torch.dtype) -> Pair:
    """Projections (R, n, 3 heads d) -> rotated, attended (R, n, heads d)."""
    qkv = torch.randn(R, n, 3 * HEADS * WIDTH, dtype=dtype, requires_grad=True)
    angle = torch.rand(n, 1, WIDTH // 2)
    table, cosine, sine = torch.polar(torch.ones_like(angle), angle), angle.cos(), angle.sin()

    def plain():
        q, k, v = (x.unflatten(-1, (HEADS, WIDTH)) for x in qkv.chunk(3, dim=-1))
        q, k = (halves_turned(x, cosine, sine).to(dtype) for x in (q, k))
        y = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    def ours():
        x = qkv * 1  # as from a linear map: it may be written to
        if dtype == torch.bfloat16:
            return fused_attention(x, table, HEADS, causal)
        y = F.scaled_dot_product_attention(*rotated_heads(x, table, HEADS), is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    return plain, ours


def halves_turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def models(depth: str):
    """The default model with one block in each stack, the same as a textbook would write it, and a clip."""
    index = np.arange(NEURONS)
    mouse = Mouse("A", np.random.default_rng(0).uniform(0, 600, (NEURONS, 3)), index, index, {})
    flags = {"core_spatial_depth": 1, "core_temporal_depth": 1, "core_use_causal_attention": True}
    model = build_model(ModelConfig.from_flags(flags | {"core_drop_path_mode": depth}), {"A": mouse})
    shapes = ((1, 1, FRAMES, 36, 64), (1, 2, FRAMES), (1, 2, FRAMES))
    return model, TextbookModel(model, "A"), tuple(map(torch.randn, shapes))


def parser():
    parser = cli.Parser(__doc__)
    parser.add_argument("--profile", action="store_true", help="only show where the time of a block goes")
    parser.add_argument("--repeats", type=cli.number(int, 1), default=12, help="of each part (default: 12)")
    return parser


if __name__ == "__main__":
    cli.run(main, parser())
