"""The one place that builds the parts and connects them: training, transcription and evaluation of whole models."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import torch

from las import audio, checkpoint
from las import config as settings
from las.audio import Source
from las.data.augment import AugmentConfig
from las.data.loader import Loader, LoaderConfig
from las.data.manifest import read_manifest
from las.data.shards import Entry, Index, read_index, read_sample
from las.errors import UserError
from las.evaluate.media import Attention, Media
from las.evaluate.report import SetResult, command, hardware, program
from las.evaluate.score import score
from las.ledger import Ledger
from las.model.ctc import frames_needed
from las.model.device import choose_device
from las.model.frontend import frame_count
from las.model.las import LAS, ModelConfig
from las.search.beam import SearchConfig
from las.search.scorers import Part, Scorer
from las.text.alignment import ErrorCounts, align
from las.text.normalize import normalize, style_named
from las.text.tokenizer import BOS, EOS, Tokenizer
from las.train import run_folder
from las.train.distributed import World, joined
from las.train.growth import check_growth, check_growth_ends
from las.train.loop import ALONE, Reporter, TrainConfig, Trainer, Validation
from las.train.mwer import Mwer
from las.train.objectives import losses, token_shares
from las.transcribe.confidence import read_map
from las.transcribe.language_model import open_scorer
from las.transcribe.recognizer import NEVER, Recognizer, known_lengths

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_MODEL = "digits"
STATISTICS_SECONDS = 3600.0  # s of training audio that mean and variance of the features are taken from
CHECKED_TEXTS = 20_000  # transcripts that are looked through or counted before training; of more, every n-th
REPORT_AUDIO = 16_000_000  # bytes of recordings that a set puts into its report
REPORT_PICTURES = 200  # utterances of a set whose attention is pictured
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
        check_growth(self.train.growth, len(self.model.listener.reduce))
        if self.init and self.train.growth:
            raise UserError(f"train.growth with init={self.init}: a trained listener has grown already; give only one")
        if self.train.mwer.hypotheses and not self.init:
            raise UserError("train.mwer.hypotheses without init: it is for models that are trained; give init=MODEL")
        _check_parts_fit(self.model, self.train)


def _check_parts_fit(model: ModelConfig, train: TrainConfig) -> None:
    """Raise `UserError` for training craft that has nothing to work on in this model."""
    objective = train.objective
    if objective.guide_weight and model.speller.context != "attention":
        raise UserError(
            f"train.objective.guide_weight {objective.guide_weight}: with model.speller.context "
            f"{model.speller.context} there is no attention to guide; set one to 0, or the other to attention"
        )
    if objective.ctc_weight_to is not None and not model.ctc:
        raise UserError(
            f"train.objective.ctc_weight_to {objective.ctc_weight_to}: with model.ctc=false there is no CTC loss to "
            "weigh; set one to null, or the other to true"
        )
    if train.sampling.share and model.ctc and objective.ctc_weight == 1 and objective.ctc_weight_to is None:
        raise UserError(
            f"train.sampling.share {train.sampling.share}: with train.objective.ctc_weight 1 the speller learns "
            "nothing from what it reads; set one to 0, or the other below 1"
        )


# ----------------------------------------------------------------------------------------------------------- training


def train(config: RunConfig, folder: Path, resume: bool, reporter: Reporter) -> Path:
    """Train as `config` says in the run folder `folder`; the model folder is returned.

    A folder that holds a run is refused, or with `resume` continued with the same config. Where torchrun started this
    process with others, they train one model together; ranks that it starts again after a failure resume.
    """
    for name in ("train", "valid", "tokenizer"):
        if not getattr(config.data, name):
            raise UserError(f"data.{name} is not set: give it in the config or as data.{name}=PATH")
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and (folder / "config.yaml").is_file()
    free = ("train.device", "data.workers", "data.cache", "train.save_minutes", "train.lost_minutes")
    state = run_folder.opened(config, folder, resume or again, free)
    with ranks(config.train.device, config.train.lost_minutes) as (device, world):
        return _train(config, folder, state, reporter, device, world)


@contextmanager
def ranks(device: str, lost_minutes: float = 60.0) -> Iterator[tuple[torch.device, World]]:
    """This rank's device and its world, for as long as the ranks work together."""
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    with joined("nccl" if chosen.type == "cuda" else "gloo", lost_minutes) as world:
        yield chosen, world


def _train(
    config: RunConfig,
    folder: Path,
    state: dict[str, Any] | None,
    reporter: Reporter,
    device: torch.device,
    world: World,
) -> Path:
    torch.manual_seed(config.train.seed)
    tokenizer = Tokenizer.load(config.data.tokenizer)
    rate = config.model.frontend.sample_rate
    index, valid_index = (read_index(place, config.data.cache) for place in (config.data.train, config.data.valid))
    seed = config.train.seed
    loader = Loader(index, tokenizer, rate, config.data, shuffle=True, seed=seed, augment=config.augment)
    valid_data = replace(config.data, longest=float("inf"), leave_out=1.0)
    valid_loader = Loader(valid_index, tokenizer, rate, valid_data, shuffle=False, seed=0)
    plans = (len(loader.plan(epoch)) for epoch in range(config.train.epochs))
    check_growth_ends(config.train.growth, (-(-plan // (config.train.accumulate * world.size)) for plan in plans))
    if config.model.ctc:
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
        validate()  # what cannot work should fail now: not after the first epoch, and before the folder is taken
        if world.leads:
            run_folder.claim(config, folder)
    shares = None
    if config.train.objective.smoothing == "unigram":
        texts = (tokenizer.encode(text) for _, text in loader.texts(CHECKED_TEXTS))
        shares = token_shares(texts, tokenizer.size, EOS)
    mwer = _mwer(recognizer, config) if config.train.mwer.hypotheses else None
    trainer = Trainer(model, loader, validate, config.train, folder, BOS, EOS, reporter, shares, mwer, world)
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


def _mwer(recognizer: Recognizer, config: RunConfig) -> Mwer:
    """The n-best of the model as it is searched otherwise, and their word errors as they are counted otherwise."""
    hypotheses = config.train.mwer.hypotheses
    search = replace(config.search, beam=hypotheses)

    def text(ids: Sequence[int]) -> str:
        return normalize(recognizer.tokenizer.decode(list(ids)), config.style)

    def count(reference: Sequence[int], hypothesis: Sequence[int]) -> int:
        return align(text(reference), text(hypothesis)).counts.errors

    return Mwer(lambda listened: recognizer.spell(listened, search, hypotheses), count, BOS, EOS)


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
    if changed := run_folder.differences(heard, model.config.frontend, "model.frontend."):
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
    """Judges a model on the validation set: loss with the transcript given, error rate by greedy search.

    The ranks of `world` share the set, and all come to the same figures.
    """

    def __init__(self, recognizer: Recognizer, loader: Loader, config: RunConfig, world: World = ALONE):
        self.recognizer = recognizer
        self.loader = loader
        self.config = config
        self.world = world

    @torch.no_grad()
    def __call__(self) -> Validation:
        model, tokenizer = self.recognizer.model.eval(), self.recognizer.tokenizer
        search = replace(self.config.search, beam=1)
        total, tokens, counts = 0.0, 0, ErrorCounts()
        fixed: tuple[torch.Tensor, list[str], str] | None = None
        for _, read in self.loader.batches(0, 0, self.world.rank, self.world.size):
            if read is None:
                continue
            batch = read.to(self.recognizer.device)
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
        figures = (total, tokens, *astuple(counts))
        total, spoken, *errors = self.world.add(figures, self.recognizer.device)
        counts = ErrorCounts(*map(int, errors))
        if counts.rate is None:
            raise UserError(f"data.valid {self.config.data.valid}: no words to validate on ({self.loader.ledger})")
        return Validation(total / spoken, counts.rate, *(fixed or (torch.ones(1, 1), [""], "")))


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
    return f"""# {folder.name}

A Listen, Attend and Spell model with {size / 1e6:.2f} million parameters, made by {program()}.

| | |
|---|---|
| trained on | {loader.index.name}: {len(loader.entries)} utterances, {loader.seconds / 3600:.2f} h |
| validated on | {valid_loader.index.name}: {len(valid_loader.entries)} utterances, WER {final.error_rate:.2%} |
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


def open_model(
    name: str | Path, device: str | torch.device = "auto", overrides: Sequence[str] = ()
) -> tuple[Recognizer, RunConfig]:
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
    chosen = choose_device(device) if isinstance(device, str) else device
    parts = _language_models(folder.path, config.search, tokenizer, chosen)
    confidence = read_map(folder.path)
    return Recognizer(model.eval().to(chosen), tokenizer, config.search, str(name), parts, confidence), config


def _language_models(
    folder: Path, search: SearchConfig, tokenizer: Tokenizer, device: torch.device
) -> list[Callable[[int], Part]]:
    """The parts of language models in the search with a model from `folder`."""
    own = folder / "language_model"
    dtype = torch.bfloat16 if search.bfloat16 else torch.float32
    added = search.language_model or (str(own) if own.is_dir() else "")
    asked = (
        ("language model", added, search.language_weight),
        ("source model", search.source_model, -search.source_weight),
    )
    return [
        partial(_language_part, name, open_scorer(path, tokenizer, NEVER, device, dtype), weight)
        for name, path, weight in asked
        if path and weight
    ]


def _language_part(name: str, scorer: Callable[[int], Scorer[Any]], weight: float, utterances: int) -> Part:
    return Part(name, scorer(utterances), weight)


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate_set(
    recognizer: Recognizer,
    name: str,
    path: Path,
    style: str,
    on_progress: Callable[[float, float], None] | None = None,
    world: World = ALONE,
) -> SetResult:
    """Transcribe a set, a folder of shards or a manifest, and score it. `on_progress` gets seconds done and in all.

    The ranks of `world` each transcribe a part, and all have the whole result.
    """
    recordings, total = recordings_of(path, world)
    started = time.perf_counter()
    done = 0.0

    def progress(seconds: float) -> None:
        nonlocal done
        done += seconds * world.size
        if on_progress is not None:
            on_progress(min(done, total), total)

    known: list[tuple[str, str, str | None]] = []
    transcripts = recognizer.transcribe(sources_of(recordings, known), on_progress=progress)
    own = [[*about, one.text, one.seconds] for about, one in zip(known, transcripts, strict=True)]
    every = [json.loads(lines) for lines in world.gather_text(json.dumps(own), recognizer.device)]
    found = [every[place % world.size][place // world.size] for place in range(sum(map(len, every)))]  # in order
    seconds = time.perf_counter() - started
    references = {id: reference for id, reference, *_ in found}
    speakers = {id: speaker for id, _, speaker, *_ in found if speaker}
    hypotheses = {id: text for id, *_, text, _ in found}
    lengths = {id: length for id, *_, length in found}
    search = recognizer.search
    ctc = f"CTC {search.ctc_weight:g}, " if recognizer.model.ctc is not None else ""
    added = f"language model {search.language_weight:g}, " if recognizer.language_models else ""
    decoding = f"beam {search.beam}, {ctc}{added}length exponent {search.length_exponent:g}, style {style}"
    scored = score(references, hypotheses, style)
    return SetResult(name, scored, references, hypotheses, lengths, seconds, recognizer.name, decoding, speakers)


class _Recording(NamedTuple):
    """What is transcribed, and what is known of it."""

    id: str
    reference: str
    speaker: str | None
    source: Source


def recordings_of(path: Path, world: World = ALONE) -> tuple[Iterator[_Recording], float]:
    """The recordings of a set that are this rank's, read when they are asked for, and the set's seconds."""
    if path.is_dir():
        index = read_index(path)
        return (_from_shard(index, entry) for entry in index.entries[world.rank :: world.size]), index.seconds
    utterances = read_manifest(path)
    own = utterances[world.rank :: world.size]
    seconds = sum(one.seconds or 0.0 for one in utterances)
    return (_Recording(one.id, one.text, one.speaker, one.audio) for one in own), seconds


def _from_shard(index: Index, entry: Entry) -> _Recording:
    sample = read_sample(index, entry)
    recording = io.BytesIO(sample.audio_bytes)
    recording.name = sample.id
    return _Recording(sample.id, sample.text, sample.speaker, recording)


def sources_of(recordings: Iterable[_Recording], known: list[tuple[str, str, str | None]]) -> Iterator[Source]:
    """The recordings one after another; what is known of them is kept, they are not."""
    for one in recordings:
        known.append((one.id, one.reference, one.speaker))
        yield one.source


def illustrate(recognizer: Recognizer, result: SetResult, path: Path, folder: Path) -> dict[str, Media]:
    """Recordings and pictures of a set's utterances for a report in `folder`, those with most errors first.

    Recordings go into the report while there is room; after that a manifest's are linked to, a shard's left out.
    """
    media: dict[str, Media] = {}
    room = REPORT_AUDIO
    order = sorted(result.score.utterances, key=lambda one: -one.alignment.counts.errors)
    for number, (id, read, address) in enumerate(_recordings([one.id for one in order], path)):
        pictured = number < REPORT_PICTURES
        if room <= 0 and not pictured and not address:
            break
        data = read() if room > 0 or pictured else b""
        fits = 0 < len(data) <= room
        if fits:
            room -= len(data)
        elif not pictured:
            room = 0  # no more are read to see whether they fit
        link = quote(os.fsencode(os.path.relpath(address, folder))) if address and not fits else ""
        attention = attention_of(recognizer, data, result.hypotheses[id]) if pictured else None
        media[id] = Media(data if fits else None, link, attention)
    return media


def _recordings(ids: list[str], path: Path) -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """Utterances of a set in the order of `ids`: id, what reads its audio file, the file's path where it has one."""
    if path.is_dir():
        index = read_index(path)
        entries = {entry.id: entry for entry in index.entries}
        for id in ids:
            yield id, partial(lambda entry: read_sample(index, entry).audio_bytes, entries[id]), ""
    else:
        files = {utterance.id: utterance.audio for utterance in read_manifest(path)}
        for id in ids:
            yield id, Path(files[id]).read_bytes, files[id]


@torch.no_grad()
def attention_of(recognizer: Recognizer, recording: bytes, text: str) -> Attention | None:
    """Where the speller looks as it writes `text`; None without attention, or where the recording is read in pieces."""
    model, tokenizer = recognizer.model, recognizer.tokenizer
    wave = audio.load(recording, recognizer.rate)
    if len(wave) > recognizer.whole * recognizer.rate or model.speller.attention is None:
        return None
    tokens = tokenizer.encode(text)
    listened = model.listen(
        wave.unsqueeze(0).to(recognizer.device), torch.tensor([len(wave)], device=recognizer.device)
    )
    before = torch.tensor([[BOS, *tokens]], device=recognizer.device)
    _, weights = model.speller(before, model.remember(listened))  # (1, L + 1, S)
    return Attention((*tokenizer.pieces(tokens), "</s>"), weights[0].float().cpu().numpy())
