"""Predict the responses of a trained twin to recorded trials.

reads   RUN/ckpt/best.pt (or a run of the public implementation), <data_dir>/<lab>/<recording>/
writes  RUN/responses/mouse<ID>.h5: one dataset (neurons, frames) float32 per trial, named by the trial's number
next    evaluate.py

Every tier is predicted, those with withheld responses too. Trials of any length are predicted whole. A killed run goes
on where it stopped and ends in the same bytes as an undisturbed one; tiers predicted earlier are kept. Several
processes (torchrun --nproc_per_node 4 predict.py ...) share the trials.
"""

import contextlib
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from viv1t import cli, distributed, io
from viv1t.checkpoint import RunLock
from viv1t.constants import TIERS
from viv1t.data.cache import Cache, open_cache
from viv1t.data.mice import find_recordings
from viv1t.data.recording import Recording
from viv1t.errors import UserError
from viv1t.inference import PRECISIONS, Twin, equal_batches, load_twin, predict_trials, read_ahead
from viv1t.results import Responses, locate, write_responses

UNITS = cli.Words("recorded", "standardised")
ALL_TIERS = tuple(tier for tier in TIERS.values() if tier != "none")


def get_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--output_dir", required=True, metavar="RUN", help="run folder that train.py wrote")
    parser.add_argument("--data_dir", default="data", help="folder of the recordings (default: data)")
    parser.add_argument("--cache_dir", help="folder of the compact copies (default: .cache beside the recording)")
    parser.add_argument("--mouse_ids", nargs="+", metavar="ID", help="mice to predict (default: all of the run)")
    parser.add_argument(
        "--ds_tier", nargs="*", metavar="TIER", default=[], help=f"{', '.join(ALL_TIERS)} (default: all)"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu (default: auto)")
    parser.add_argument("--precision", default="32", choices=PRECISIONS, help="32 (default), tf32 or bf16, faster")
    parser.add_argument("--compile", action="store_true", help="compile the transformers first; pays off on a GPU")
    parser.add_argument("--batch_size", type=cli.number(int, 1), default=1, help="trials at once (default: 1)")
    parser.add_argument("--num_workers", type=cli.number(int, 0, 64), default=2, help="threads that read (default: 2)")
    parser.add_argument("--skip", type=cli.number(int, 0), default=0, help="frames left out of the file at the start "
                        "of every trial (default: 0, all frames are kept; scores never use the first 50)")  # fmt: skip
    parser.add_argument("--units", type=UNITS, default="recorded", help=f"{UNITS} (default: recorded)")
    return parser


def main(args) -> None:
    with distributed.joined():
        tiers = choose_tiers(args.ds_tier)
        twin = load_twin(args.output_dir, args.device, args.precision, args.data_dir, args.compile)
        mouse_ids = args.mouse_ids or list(twin.mice)
        for mouse_id in mouse_ids:
            twin.mouse(mouse_id)
        with distributed.main_only(RunLock(Path(args.output_dir) / "responses")):
            for mouse_id, folder in find_recordings(args.data_dir, mouse_ids).items():
                cache = open_cache(Recording(folder, mouse_id), args.cache_dir)
                check_neurons(twin, cache)
                predict_mouse(twin, cache, tiers, args)


def choose_tiers(names: list[str]) -> list[str]:
    tiers = [TIERS.get(name, name) for name in names if name]
    for tier in tiers:
        if tier not in ALL_TIERS:
            raise UserError(
                f"--ds_tier {tier} is unknown{cli.did_you_mean(tier, ALL_TIERS)}; one of {', '.join(ALL_TIERS)}."
            )
    return tiers or list(ALL_TIERS)


def check_neurons(twin: Twin, cache: Cache) -> None:
    """The recording must hold the neurons that the twin was trained on, in the same rows."""
    mouse, recording = twin.mice[cache.recording.id], cache.recording
    known = recording.unit_ids[mouse.neurons[mouse.neurons < recording.num_neurons]]
    if not np.array_equal(known, mouse.unit_ids):
        raise UserError(
            f"{recording.directory}: its unit ids are not those of the neurons that the twin was trained on. "
            "Give the --data_dir of the training run."
        )


def predict_mouse(twin: Twin, cache: Cache, tiers: list[str], args) -> None:
    """Predict the trials that the response file lacks, each into a file of its own; then write them all as one.

    Several processes each predict a share; the main one prepares the folder before, and writes the file after.
    """
    recording = cache.recording
    path = locate(args.output_dir, "responses", recording.id)
    attributes = {
        "checkpoint": twin.hash,
        "recording": recording.fingerprint,
        "skip": args.skip,
        "units": args.units,
        "precision": args.precision,
    }
    kept = predicted_before(path, attributes)
    wanted = [int(i) for tier in tiers for i in recording.trial_ids(tier) if i not in kept]
    parts = path.with_name(f".{path.stem}.parts")
    if not wanted:
        distributed.main_does(shutil.rmtree, parts, ignore_errors=True)
        print(f"mouse {recording.id}: nothing to predict, {path} holds {len(kept)} trials.")
        return
    shortest = min(wanted, key=lambda i: cache.frames[i])
    if cache.frames[shortest] <= args.skip:
        raise UserError(f"--skip {args.skip} leaves nothing of trial {shortest} ({cache.frames[shortest]} frames).")
    distributed.main_does(io.open_parts, parts, attributes | {"batch_size": args.batch_size, "compile": args.compile})
    batches = equal_batches({i: int(cache.frames[i]) for i in wanted}, args.batch_size)
    predict_parts(twin, cache, distributed.share(batches), parts, args)
    distributed.barrier()
    distributed.main_does(write_responses, path, assemble(path, kept, wanted, parts, recording.tiers), attributes)
    distributed.main_does(shutil.rmtree, parts)
    print(f"mouse {recording.id}: {len(wanted)} trials predicted, {len(kept) + len(wanted)} in {path}.")


def predicted_before(path: Path, attributes: dict) -> set[int]:
    """Trials that an earlier run predicted with the same weights, recording and settings."""
    if not path.is_file():
        return set()
    with Responses(path) as responses:
        if responses.attributes == attributes:
            return set(responses.tiers)
        print(f"{path}: made by another checkpoint, recording or setting; replaced.")
        return set()


def predict_parts(twin: Twin, cache: Cache, batches: list[list[int]], parts: Path, args) -> None:
    """One .npy file per trial; batches whose files all exist are not computed again."""
    mouse_id = cache.recording.id
    open_batches = [batch for batch in batches if not all((parts / f"{i}.npy").is_file() for i in batch)]
    done = sum(map(len, batches)) - sum(map(len, open_batches))
    reading = read_ahead(lambda batch: [cache.trial(i) for i in batch], open_batches, args.num_workers)
    with tqdm(total=sum(map(len, batches)), initial=done, desc=f"mouse {mouse_id}", unit="trial", disable=None) as bar:
        for batch, trials in zip(open_batches, reading, strict=True):
            responses = predict_trials(twin, mouse_id, trials)
            if args.units == "standardised":
                responses = twin.transforms[mouse_id].responses(responses)
            responses = responses[..., max(0, responses.shape[-1] - (trials[0].frames - args.skip)) :]
            for i, response in zip(batch, responses.numpy(), strict=True):
                io.write_array(parts / f"{i}.npy", np.ascontiguousarray(response))
            bar.update(len(batch))


def assemble(path: Path, kept: set[int], wanted: list[int], parts: Path, tiers: np.ndarray):
    """(trial, tier, responses) of the earlier file and of the parts, by trial number."""
    with Responses(path) if kept else contextlib.nullcontext() as earlier:
        for i in sorted(kept | set(wanted)):
            yield i, str(tiers[i]), earlier.read(i) if i in kept else np.load(parts / f"{i}.npy", allow_pickle=False)


if __name__ == "__main__":
    cli.run(main, get_parser())
