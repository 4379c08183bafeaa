"""A recogniser trained from shards: the parts are built from a config, connected, and left in a run folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from las import checkpoint
from las import config as settings
from las.data.loader import Loader
from las.data.shards import read_index
from las.errors import UserError
from las.evaluate.report import command, hardware, program
from las.ledger import Ledger
from las.model.ctc import frames_needed
from las.model.frontend import frame_count
from las.model.las import LAS, ModelConfig
from las.recipe.config import RunConfig
from las.recipe.models import start_from
from las.recipe.validation import Validator
from las.text.alignment import align
from las.text.normalize import normalize
from las.text.tokenizer import BOS, EOS, Tokenizer
from las.train import run_folder
from las.train.distributed import World, world_on
from las.train.growth import check_growth_ends
from las.train.loop import Reporter, Trainer, Validation
from las.train.mwer import Mwer
from las.train.objectives import token_shares
from las.transcribe.recognizer import Recognizer, known_lengths

STATISTICS_SECONDS = 3600.0  # s of training audio that mean and variance of the features are taken from
CHECKED_TEXTS = 20_000  # transcripts that are looked through or counted before training; of more, every n-th
PATHLESS_LIMIT = 0.01  # share of utterances without a CTC path above which a run does not start


def train(config: RunConfig, folder: Path, resume: bool, reporter: Reporter) -> Path:
    """Train as `config` says in the run folder `folder`; the model folder is returned.

    A folder that holds a run is refused, or with `resume` continued with the same config; a finished one stays as it
    is. Where torchrun started this process with others, they train one model together; ranks that it starts again
    after a failure resume.
    """
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and (folder / run_folder.CONFIG).is_file()
    free = (
        "train.device", "train.save_minutes", "train.lost_minutes", "data.workers", "data.cache", "data.leave_out",
    )  # fmt: skip
    state = run_folder.opened(config, folder, resume or again, free)
    for name in ("train", "valid", "tokenizer"):
        if not getattr(config.data, name):
            raise UserError(f"data.{name} is not set: give it in the config or as data.{name}=PATH")
    if run_folder.is_finished(state, config.train.epochs, folder / "model"):
        return folder / "model"
    resumed = resume or again
    with world_on(config.train.device, config.train.lost_minutes) as (device, world), ExitStack() as held:
        if world.leads and state is not None:
            held.enter_context(run_folder.held(folder))

        def claim() -> None:
            if world.leads:
                held.enter_context(run_folder.held(folder))
                run_folder.claim(config, folder, resumed)

        return _train(config, folder, state, reporter, device, world, claim)


def _train(
    config: RunConfig,
    folder: Path,
    state: dict[str, Any] | None,
    reporter: Reporter,
    device: torch.device,
    world: World,
    claim: Callable[[], None],
) -> Path:
    torch.manual_seed(config.train.seed)
    tokenizer = Tokenizer.load(config.data.tokenizer)
    rate = config.model.frontend.sample_rate
    index, valid_index = (read_index(place, config.data.cache) for place in (config.data.train, config.data.valid))
    seed = config.train.seed
    loader = Loader(index, tokenizer, rate, config.data, shuffle=True, seed=seed, augment=config.augment)
    valid_data = replace(config.data, longest=float("inf"))
    valid_loader = Loader(valid_index, tokenizer, rate, valid_data, shuffle=False, seed=0, keep_unknown=True)
    plans = (len(loader.plan(epoch)) for epoch in range(config.train.epochs))
    check_growth_ends(config.train.growth, (-(-plan // (config.train.accumulate * world.size)) for plan in plans))
    if config.model.ctc and state is None:
        check_ctc_paths(loader, tokenizer, config.model)
    model = LAS(config.model, tokenizer.size)
    if state is None and config.init:
        start_from(model, tokenizer, config.init)
    elif state is None:
        model.frontend.fit(_some_batches(loader))
    model.to(device)
    if world.rank:  # weights are the same everywhere, masks are not
        torch.manual_seed(hash((config.train.seed, world.rank)))
    recognizer = Recognizer(model, tokenizer, config.search)
    validate = Validator(recognizer, valid_loader, config, world)
    if state is None:
        # what cannot work should fail now: not after the first epoch, and before the folder is taken
        validate(trial=True)
        claim()
    trainer = build_trainer(config, recognizer, loader, validate, folder, reporter, world)
    if state is not None:
        trainer.restore(state)
    with closing(trainer.log):
        best = trainer.run()
        left = [world.gather_text(one.lines(), device) for one in (loader.ledger, trainer.ledger, valid_loader.ledger)]
        if not world.leads:
            return folder / "model"
        checkpoint.load_weights(model, checkpoint.average(best), folder)
        final = Validator(recognizer, valid_loader, config)()
        trainer.log.write(trainer.progress.update, "averaged", {"loss": final.loss, "wer": final.error_rate})
    _write_ledger(folder, left)
    card = _card(folder, loader, valid_loader, trainer, final)
    weights = model.state_dict()
    search = known_lengths([entry.seconds for entry in loader.entries], config.search)
    text = settings.to_yaml(replace(config, search=search))
    checkpoint.write_model(folder / "model", text, weights, tokenizer.to_bytes(), tokenizer.size, card)
    return folder / "model"


def build_trainer(
    config: RunConfig,
    recognizer: Recognizer,
    loader: Loader,
    validate: Callable[[], Validation],
    folder: Path,
    reporter: Reporter,
    world: World,
) -> Trainer:
    """What trains the recogniser's model, with all that `config` asks for beside the batches."""
    tokenizer, shares, mwer = recognizer.tokenizer, None, None
    if config.train.objective.smoothing == "unigram":
        texts = (tokenizer.encode(text) for _, text in loader.texts(CHECKED_TEXTS))
        shares = token_shares(texts, tokenizer.size, EOS)
    if config.train.mwer.hypotheses:
        mwer = _mwer(recognizer, config)
    model = recognizer.model
    return Trainer(model, loader, validate, config.train, folder, BOS, EOS, reporter, shares, mwer, world)


def _mwer(recognizer: Recognizer, config: RunConfig) -> Mwer:
    """The n-best of the model as it is searched otherwise, and their word errors as they are counted otherwise."""
    hypotheses = config.train.mwer.hypotheses
    search = replace(config.search, beam=hypotheses)

    def text(ids: Sequence[int]) -> str:
        return normalize(recognizer.tokenizer.decode(list(ids)), config.style)

    def count(reference: Sequence[int], hypothesis: Sequence[int]) -> int:
        return align(text(reference), text(hypothesis)).counts.errors

    return Mwer(lambda listened: recognizer.spell([listened], search, hypotheses), count, BOS, EOS)


def _some_batches(loader: Loader) -> Any:
    """Batches of a random sample of the training data, enough for the features' statistics."""
    share = min(1.0, STATISTICS_SECONDS / loader.seconds)
    drawn = 1 if loader.config.sorted_first else 0  # an epoch in no order; a sorted one begins with the shortest
    return islice(loader.epoch(drawn), max(1, round(share * len(loader.plan(drawn)))))


def check_ctc_paths(loader: Loader, tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Raise `UserError` when more than 1% of the utterances have fewer listener frames than a CTC path takes."""
    rate, window, hop = config.frontend.sample_rate, config.frontend.window_samples, config.frontend.hop_samples
    texts = [(entry, tokenizer.encode(text)) for entry, text in loader.texts(CHECKED_TEXTS)]
    needed = [int(frames_needed(torch.tensor([ids]), torch.tensor([len(ids)]))) for _, ids in texts]
    heard = [config.listener_frames(round(entry.seconds * rate)) for entry, _ in texts]
    pathless = [entry.id for (entry, _), frames, need in zip(texts, heard, needed, strict=True) if frames < need]
    if len(pathless) <= PATHLESS_LIMIT * len(texts):
        return
    read = [frame_count(round(entry.seconds * rate), window, hop) for entry, _ in texts]
    # ceil(frames / reduction) >= needed as long as reduction * (needed - 1) < frames
    largest = sorted(
        (frames - 1) // (need - 1) if need > 1 else frames for frames, need in zip(read, needed, strict=True)
    )
    fitting = largest[int(PATHLESS_LIMIT * len(largest))]
    way_out = f"one of at most {fitting} fits (model.listener)" if fitting else "a shorter model.frontend.hop may fit"
    raise UserError(
        f"{len(pathless)} of {len(texts)} utterances (first: {pathless[0]}) have fewer listener frames than their "
        f"tokens need for CTC at a reduction of {config.listener.reduction}; {way_out}, or use longer tokens "
        f"(`las tokenizer --size` above {tokenizer.size}, unigram or bpe), or model.ctc=false"
    )


def _write_ledger(folder: Path, left: Sequence[Sequence[str]]) -> None:
    """What was left out, as ledger lines of every rank: by the loader, in training, in validation."""
    together = Ledger()
    for name, ranks in zip(("train", "train", "valid"), left, strict=True):
        own = Ledger()
        for lines in ranks:
            own.take(lines)
            together.take(lines)
        if len(own):
            print(f"{name}: {own}", file=sys.stderr)
    together.write(folder / "left_out.jsonl")


def _card(folder: Path, loader: Loader, valid_loader: Loader, trainer: Trainer, final: Validation) -> str:
    config, progress = trainer.config, trainer.progress
    minutes = progress.seconds / 60
    size = sum(value.numel() for value in trainer.model.parameters())
    judged = len(valid_loader.entries) - len(valid_loader.ledger)
    return f"""# {folder.name}

A Listen, Attend and Spell model with {size / 1e6:.2f} million parameters, made by {program()}.

| | |
|---|---|
| trained on | {loader.index.name}: {len(loader.entries)} utterances, {loader.seconds / 3600:.2f} h |
| validated on | {valid_loader.index.name}: {judged} utterances, WER {final.error_rate:.2%} |
| training | {config.epochs} epochs, {progress.update} updates, seed {config.seed}: {minutes:.1f} min on {hardware()} |
| command | `{command()}` |

Licence and limits: those of the data it was trained on; expect it to work on speech like that, and on no other.
"""
