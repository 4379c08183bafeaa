"""The one place that builds the parts and connects them: training, transcription and evaluation of whole models."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from las import checkpoint
from las import config as settings
from las.audio import Source
from las.data.augment import AugmentConfig
from las.data.loader import Loader, LoaderConfig
from las.data.manifest import read_manifest
from las.data.shards import Index, read_index, read_sample
from las.errors import UserError
from las.evaluate.report import SetResult, command, hardware, program
from las.evaluate.score import score
from las.ledger import Ledger
from las.model.ctc import frames_needed
from las.model.frontend import frame_count
from las.model.las import LAS, ModelConfig
from las.search.beam import SearchConfig
from las.text.alignment import ErrorCounts, align
from las.text.normalize import normalize, style_named
from las.text.tokenizer import BOS, EOS, Tokenizer
from las.train.loop import Reporter, TrainConfig, Trainer, Validation
from las.train.objectives import losses, token_shares
from las.transcribe.recognizer import Recognizer

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_MODEL = "digits"
STATISTICS_SECONDS = 3600.0  # s of training audio that mean and variance of the features are taken from
CHECKED_TEXTS = 20_000  # transcripts that are looked through or counted before training; of more, every n-th
PATHLESS_LIMIT = 0.01  # share of utterances without a CTC path above which a run does not start


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run; a model folder keeps them."""

    init: str = ""  # model name or folder to start from; empty: random weights
    style: str = "basic"  # how transcripts are normalised before errors are counted
    model: ModelConfig = field(default_factory=ModelConfig)
    data: LoaderConfig = field(default_factory=LoaderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self) -> None:
        style_named(self.style)


# ----------------------------------------------------------------------------------------------------------- training


def train(config: RunConfig, folder: Path, resume: bool, reporter: Reporter) -> Path:
    """Train as `config` says in the run folder `folder`; the model folder is returned.

    A folder that holds a run is refused, or with `resume` continued with the same config.
    """
    for name in ("train", "valid", "tokenizer"):
        if not getattr(config.data, name):
            raise UserError(f"data.{name} is not set: give it in the config or as data.{name}=PATH")
    state = _open_run(config, folder, resume)
    device = choose_device(config.train.device)
    torch.manual_seed(config.train.seed)
    tokenizer = Tokenizer.load(config.data.tokenizer)
    rate = config.model.frontend.sample_rate
    index, valid_index = read_index(config.data.train), read_index(config.data.valid)
    seed = config.train.seed
    loader = Loader(index, tokenizer, rate, config.data, shuffle=True, seed=seed, augment=config.augment)
    valid_data = replace(config.data, longest=float("inf"), leave_out=1.0)
    valid_loader = Loader(valid_index, tokenizer, rate, valid_data, shuffle=False, seed=0)
    if config.model.ctc:
        check_ctc_paths(loader, tokenizer, config.model)
    model = LAS(config.model, tokenizer.size)
    if state is None and config.init:
        start_from(model, tokenizer, config.init)
    elif state is None:
        model.frontend.fit(_some_batches(loader))
    model.to(device)
    validate = Validator(Recognizer(model, tokenizer, config.search), valid_loader, config)
    if state is None:
        validate()  # what cannot work should fail now: not after the first epoch, and before the folder is taken
        _claim(config, folder)
    shares = None
    if config.train.objective.smoothing == "unigram":
        texts = (tokenizer.encode(text) for _, text in loader.texts(CHECKED_TEXTS))
        shares = token_shares(texts, tokenizer.size, EOS)
    trainer = Trainer(model, loader, validate, config.train, folder, BOS, EOS, reporter, shares)
    if state is not None:
        trainer.restore(state)
    with closing(trainer.log):
        best = trainer.run()
        checkpoint.load_weights(model, checkpoint.average(best), folder)
        final = validate()
        trainer.log.write(trainer.progress.update, "averaged", {"loss": final.loss, "wer": final.error_rate})
    for name, ledger in (("train", loader.ledger), ("train", trainer.ledger), ("valid", valid_loader.ledger)):
        if len(ledger):
            print(f"{name}: {ledger}", file=sys.stderr)
    _write_ledger(folder, loader, valid_loader, trainer)
    card = _card(folder, loader, valid_loader, trainer, final)
    weights = model.state_dict()
    text = settings.to_yaml(config)
    checkpoint.write_model(folder / "model", text, weights, tokenizer.to_bytes(), tokenizer.size, card)
    return folder / "model"


def _open_run(config: RunConfig, folder: Path, resume: bool) -> dict[str, Any] | None:
    """Refuse a folder that cannot be used; the state to resume from, if there is one."""
    saved = folder / "config.yaml"
    if resume:
        if not saved.is_file():
            raise UserError(f"{folder}: no run to resume here; leave out --resume to start one")
        before = settings.load(RunConfig, saved)
        free = {"train.device", "data.workers", "train.save_minutes"}
        changed = [name for name in _differences(before, config) if name not in free]
        if changed:
            raise UserError(
                f"{folder}: {changed[0]} differs from the run's {saved.name}; a run is resumed as it was started"
            )
        return checkpoint.read_state(folder / "state.pt") if (folder / "state.pt").exists() else None
    if saved.exists():
        raise UserError(f"{folder}: holds a run; continue it with --resume, or name another folder")
    return None


def _claim(config: RunConfig, folder: Path) -> None:
    """Make a folder this run's by putting its config there."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "config.yaml.part"
    temporary.write_text(settings.to_yaml(config), encoding="utf-8")
    os.replace(temporary, folder / "config.yaml")


def _differences(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two configs differ."""
    names: list[str] = []
    for setting in fields(one):
        left, right = getattr(one, setting.name), getattr(other, setting.name)
        if is_dataclass(left) and type(left) is type(right):
            names += _differences(left, right, f"{prefix}{setting.name}.")
        elif left != right:
            names.append(prefix + setting.name)
    return names


def _some_batches(loader: Loader) -> Any:
    """Batches of a random sample of the training data, enough for the features' statistics."""
    share = min(1.0, STATISTICS_SECONDS / loader.seconds)
    return islice(loader.epoch(0), max(1, round(share * len(loader.plan(0)))))


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


def start_from(model: LAS, tokenizer: Tokenizer, name: str) -> None:
    """Put the weights of another model into `model`; with other tokens the layers that know tokens start anew."""
    folder = checkpoint.read_model(find_model(name))
    heard = settings.from_mapping(RunConfig, folder.config, str(folder.path / checkpoint.CONFIG)).model.frontend
    if changed := _differences(heard, model.config.frontend, "model.frontend."):
        key = changed[0].rpartition(".")[2]
        raise UserError(
            f"init={name}: {changed[0]} is {getattr(heard, key)} there and {getattr(model.config.frontend, key)} here; "
            "its weights know features made as there"
        )
    weights = folder.weights
    if folder.tokenizer != tokenizer.to_bytes():
        own = model.state_dict()
        for part in ("speller.embedding.", "speller.output.", "ctc.output."):
            weights = {name: value for name, value in weights.items() if not name.startswith(part)}
            weights |= {name: value for name, value in own.items() if name.startswith(part)}
    checkpoint.load_weights(model, weights, f"init={name}")


class Validator:
    """Judges a model on the validation set: loss with the transcript given, error rate by greedy search."""

    def __init__(self, recognizer: Recognizer, loader: Loader, config: RunConfig):
        self.recognizer = recognizer
        self.loader = loader
        self.config = config

    @torch.no_grad()
    def __call__(self) -> Validation:
        model, tokenizer = self.recognizer.model.eval(), self.recognizer.tokenizer
        search = replace(self.config.search, beam=1)
        total, tokens, counts = 0.0, 0, ErrorCounts()
        fixed: tuple[torch.Tensor, list[str], str] | None = None
        for batch in self.loader.epoch(0):
            batch = batch.to(self.recognizer.device)
            output = model(batch, BOS)
            found = losses(output, batch, EOS, smoothing=0.0)
            total, tokens = total + float(found.speller), tokens + found.tokens
            hypotheses = self.recognizer.spell(output.listened, search)
            for row, (hypothesis, length) in enumerate(zip(hypotheses, batch.lengths.tolist(), strict=True)):
                ids = batch.tokens[row, :length].tolist()
                text = tokenizer.decode(hypothesis[0].tokens if hypothesis else [])
                reference = normalize(tokenizer.decode(ids), self.config.style)
                counts += align(reference, normalize(text, self.config.style)).counts
                if fixed is None:
                    weights = output.weights[row, : length + 1, : int(output.listened.lengths[row])]
                    fixed = weights.float().cpu(), [*tokenizer.pieces(ids), "</s>"], text
        if fixed is None or counts.rate is None:
            raise UserError(f"data.valid {self.config.data.valid}: no words to validate on ({self.loader.ledger})")
        return Validation(total / tokens, counts.rate, *fixed)


def _write_ledger(folder: Path, loader: Loader, valid_loader: Loader, trainer: Trainer) -> None:
    together = Ledger()
    for ledger in (loader.ledger, valid_loader.ledger, trainer.ledger):
        for cause, cases in ledger.cases.items():
            for id, detail in cases.items():
                together.leave(cause, id, detail)
    together.write(folder / "left_out.jsonl")


def _card(folder: Path, loader: Loader, valid_loader: Loader, trainer: Trainer, final: Validation) -> str:
    config, progress = trainer.config, trainer.progress
    minutes = progress.seconds / 60
    size = sum(value.numel() for value in trainer.model.parameters())
    return f"""# {folder.name}

A Listen, Attend and Spell model with {size / 1e6:.2f} million parameters, made by {program()}.

| | |
|---|---|
| trained on | {loader.index.root.name}: {len(loader.entries)} utterances, {loader.seconds / 3600:.2f} h |
| validated on | {valid_loader.index.root.name}: {len(valid_loader.entries)} utterances, WER {final.error_rate:.2%} |
| training | {config.epochs} epochs, {progress.update} updates, seed {config.seed}: {minutes:.1f} min on {hardware()} |
| command | `{command()}` |

Licence and limits: those of the data it was trained on; expect it to work on speech like that, and on no other.
"""


# -------------------------------------------------------------------------------------------------------- using models


def find_model(name: str) -> Path:
    """The folder of a model: one that ships with the package, by name, or any folder."""
    shipped = PRETRAINED / name
    if Path(name).name == name and (shipped / checkpoint.CONFIG).is_file():
        return shipped
    if (Path(name) / checkpoint.CONFIG).is_file():
        return Path(name)
    names = ", ".join(path.name for path in pretrained()) or "none"
    raise UserError(f"no model {name!r}: neither a model folder nor one of those that ship ({names})")


def pretrained() -> list[Path]:
    """The model folders that ship with the package."""
    return sorted(path.parent for path in PRETRAINED.glob(f"*/{checkpoint.CONFIG}"))


def open_model(name: str | Path, device: str = "auto", overrides: Sequence[str] = ()) -> tuple[Recognizer, RunConfig]:
    """A model by name or folder, ready to transcribe, and its settings with `key=value` words over them."""
    folder = checkpoint.read_model(find_model(str(name)))
    config = settings.from_mapping(RunConfig, folder.config, str(folder.path / checkpoint.CONFIG), overrides)
    tokenizer = Tokenizer(folder.tokenizer, str(folder.path / checkpoint.TOKENIZER))
    if tokenizer.size != folder.vocabulary:
        raise UserError(
            f"{folder.path}: the tokenizer has {tokenizer.size} tokens, the config says {folder.vocabulary}"
        )
    model = LAS(config.model, folder.vocabulary)
    checkpoint.load_weights(model, folder.weights, folder.path / checkpoint.WEIGHTS)
    if config.search.bfloat16:
        model.to_bfloat16()
    return Recognizer(model.eval().to(choose_device(device)), tokenizer, config.search, str(name)), config


def choose_device(name: str) -> torch.device:
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: wanted auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r}: wanted auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} such devices; use device cpu or auto"
        )
    return device


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate_set(
    recognizer: Recognizer, name: str, path: Path, style: str, on_progress: Callable[[float, float], None] | None = None
) -> SetResult:
    """Transcribe a set, a folder of shards or a manifest, and score it. `on_progress` gets seconds done and in all."""
    references: dict[str, str] = {}
    sources: Iterable[Source]
    if path.is_dir():
        index = read_index(path)
        sources = _sources(index, references)
        total = index.seconds
    else:
        utterances = read_manifest(path)
        references = {utterance.id: utterance.text for utterance in utterances}
        sources = [utterance.audio for utterance in utterances]
        total = sum(utterance.seconds or 0.0 for utterance in utterances)
    started = time.perf_counter()
    done = 0.0

    def progress(seconds: float) -> None:
        nonlocal done
        done += seconds
        if on_progress is not None:
            on_progress(done, total)

    transcripts = recognizer.transcribe(sources, on_progress=progress)
    seconds = time.perf_counter() - started
    hypotheses = {id: transcript.text for id, transcript in zip(references, transcripts, strict=True)}
    audio_seconds = sum(transcript.seconds for transcript in transcripts)
    search = recognizer.search
    ctc = f"CTC {search.ctc_weight:g}, " if recognizer.model.ctc is not None else ""
    decoding = f"beam {search.beam}, {ctc}length exponent {search.length_exponent:g}, style {style}"
    scored = score(references, hypotheses, style)
    return SetResult(name, scored, references, hypotheses, audio_seconds, seconds, recognizer.name, decoding)


def _sources(index: Index, references: dict[str, str]) -> Iterator[Source]:
    """The recordings of an index, one after another, called by their ids; their texts go into `references`."""
    for entry in index.entries:
        sample = read_sample(index, entry)
        references[sample.id] = sample.text
        recording = io.BytesIO(sample.audio_bytes)
        recording.name = sample.id
        yield recording
