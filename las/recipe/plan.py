"""A config -> what a run with it will need: parameters, memory, batches, updates; before it is started.

The model is built on the meta device, where weights take no memory, to count its parameters. What a batch keeps for its
backward pass is measured, not derived: the forward pass of four small batches on the CPU, whose saved tensors are
counted (torch.autograd.graph.saved_tensors_hooks), gives the four numbers of `Activations`. Another device keeps other
things, and the backward pass needs room of its own: `las/recipe/trial.py` measures all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from las.batch import Batch
from las.data import store
from las.data.loader import Loader
from las.data.shards import INDEX, Entry, read_index
from las.model.las import LAS
from las.recipe.config import RunConfig
from las.text.tokenizer import BOS, EOS, Tokenizer
from las.train.objectives import losses

FRAMES, STEPS, UTTERANCES = (8, 24), (4, 12), 2  # of the batches that are measured
TEXTS = 200  # transcripts whose characters and tokens are counted
TOKENS = 1000  # in the vocabulary, where there is no tokenizer to ask


@dataclass(frozen=True)
class Activations:
    """Bytes that a batch keeps for its backward pass; steps are tokens and an end of sentence."""

    fixed: float  # whatever the batch, such as weights in bf16
    frame: float  # for each listener frame, padding included
    step: float  # for each step of the speller, padding included
    glance: float  # for each frame in each step: what attention keeps

    def of(self, utterances: float, frames: float, steps: float) -> float:
        """Of a batch of this many utterances, each padded to so many frames and steps.

        >>> Activations(fixed=100, frame=10, step=5, glance=1).of(utterances=2, frames=3, steps=4)
        224
        """
        return self.fixed + utterances * (frames * self.frame + steps * self.step + frames * steps * self.glance)


@dataclass(frozen=True)
class Data:
    """What the training shards come to."""

    utterances: int
    seconds: float
    plan: list[list[Entry]]  # batches of the last epoch
    largest: list[Entry]  # the batch that keeps most
    tokens: int  # of its longest transcript, about
    bytes: float  # that it keeps


@dataclass(frozen=True)
class Plan:
    """What a run will need."""

    config: RunConfig
    vocabulary: int
    parameters: dict[str, int]  # by part
    more: int  # parameters that one more token in the vocabulary takes
    activations: Activations
    data: Data | None
    missing: tuple[str, ...]  # what is left out, and why

    @property
    def size(self) -> int:
        """Parameters in all."""
        return sum(self.parameters.values())

    @property
    def kept(self) -> dict[str, int]:
        """Bytes that are there from the first update to the last."""
        config, weights = self.config.train, 4 * self.size
        found = {"weights": weights, "gradients": weights * (2 if config.accumulate > 1 else 1)}
        found["optimizer"] = 2 * weights  # both kinds keep two numbers for each weight
        if config.moving_average:
            found["moving average"] = weights
        if config.weight_noise:
            found["weights without noise"] = weights
        return found

    @property
    def updates(self) -> int:
        """In an epoch, for one process; 0 where the data is not there."""
        return -(-len(self.data.plan) // self.config.train.accumulate) if self.data is not None else 0

    @property
    def frames_per_second(self) -> float:
        """Listener frames in a second of audio."""
        return 1 / (self.config.model.frontend.hop * self.config.model.listener.reduction)


def plan(config: RunConfig) -> Plan:
    """What a run with this config will need. Data and tokenizer that are not there are left out, and that is said."""
    missing = []
    vocabulary, tokenizer = TOKENS, None
    if config.data.tokenizer and Path(config.data.tokenizer).is_file():
        tokenizer = Tokenizer.load(config.data.tokenizer)
        vocabulary = tokenizer.size
    else:
        missing.append(f"data.tokenizer {config.data.tokenizer!r} is not there: counted with {vocabulary} tokens")
    with torch.device("meta"):
        model = LAS(config.model, vocabulary)
        larger = LAS(config.model, vocabulary + 1)
    parameters = parameters_of(model)
    more = sum(parameters_of(larger).values()) - sum(parameters.values())
    activations = measure(model, config)
    train, data = config.data.train, None
    there = bool(train) and (store.is_remote(train) or (Path(train) / INDEX).is_file())
    if there and tokenizer is not None:
        data = look_at_data(config, tokenizer, activations)
    else:
        why = "without a tokenizer" if there else f"data.train {train!r} is not there"
        missing.append(f"{why}: hours, updates and the largest batch")
    if config.train.mwer.hypotheses:
        missing.append("train.mwer: what hypotheses take is not counted, but by --try")
    return Plan(config, vocabulary, parameters, more, activations, data, tuple(missing))


def parameters_of(model: LAS) -> dict[str, int]:
    """Parameters by part; attention is none of the speller's."""
    parts = {
        "listener": model.listener,
        "speller": model.speller,
        "attention": model.speller.attention,
        "ctc": model.ctc,
    }
    found = {
        name: sum(value.numel() for value in part.parameters()) for name, part in parts.items() if part is not None
    }
    found["speller"] -= found.get("attention", 0)
    assert sum(found.values()) == sum(value.numel() for value in model.parameters())
    return found


def measure(model: LAS, config: RunConfig) -> Activations:
    """What batches keep with a model, whose weights need not be there yet.

    A batch of B utterances, S frames and L steps keeps fixed + B (S frame + L step + S L glance), but for what is
    rounded up: four of them tell the four numbers.
    """
    model = model.to_empty(device="cpu")
    with torch.no_grad():  # what was in that memory before may be no numbers
        for value in model.parameters():
            value.zero_()
        for buffer in model.buffers():
            buffer.fill_(1.0)
    (few, many), (short, long), batch = FRAMES, STEPS, UTTERANCES
    seen = {(frames, steps): saved_bytes(model, config, batch, frames, steps) for frames in FRAMES for steps in STEPS}
    more_frames, more_steps = batch * (many - few), batch * (long - short)
    both = seen[many, long] - seen[few, long] - seen[many, short] + seen[few, short]
    glance = both / (more_frames * (long - short))
    frame = (seen[many, short] - seen[few, short]) / more_frames - short * glance
    step = (seen[few, long] - seen[few, short]) / more_steps - few * glance
    fixed = seen[few, short] - Activations(0.0, frame, step, glance).of(batch, few, short)
    return Activations(fixed, frame, step, glance)


def saved_bytes(model: LAS, config: RunConfig, utterances: int, frames: int, steps: int) -> int:
    """Bytes that the forward pass of a batch, its losses included, leaves for the backward pass."""
    kept: dict[int, int] = {}
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        memory = saved.untyped_storage()
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory.nbytes()
        return saved

    batch = _batch(config, utterances, frames, steps)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
            output = model(batch, BOS, config.train.sampling.share)
        found = losses(output, batch, EOS, config.train.objective.label_smoothing)
    del output, found  # till here they hold what was saved, so that no memory was used twice
    return sum(kept.values())


def _batch(config: RunConfig, utterances: int, frames: int, steps: int) -> Batch:
    """Silence that the listener makes so many frames of, with so many steps to spell."""
    frontend = config.model.frontend
    samples = frontend.window_samples + (frames * config.model.listener.reduction - 1) * frontend.hop_samples
    tokens = torch.full((utterances, steps - 1), EOS)
    lengths = torch.full((utterances,), steps - 1)
    ids = [str(number) for number in range(utterances)]
    return Batch(ids, torch.zeros(utterances, samples), torch.full((utterances,), samples), tokens, lengths)


def look_at_data(config: RunConfig, tokenizer: Tokenizer, activations: Activations) -> Data:
    """What the training shards come to. Raises `UserError` as reading them does."""
    rate = config.model.frontend.sample_rate
    loader = Loader(
        read_index(config.data.train), tokenizer, rate, config.data,  # nothing is fetched for a few texts
        shuffle=True, seed=config.train.seed, augment=config.augment,
    )  # fmt: skip
    texts = list(loader.texts(TEXTS))
    share = sum(len(tokenizer.encode(text)) for _, text in texts) / sum(entry.characters for entry, _ in texts)

    def tokens(batch: list[Entry]) -> int:
        return round(share * max(entry.characters for entry in batch))

    def kept(batch: list[Entry]) -> float:
        frames = config.model.listener_frames(round(rate * max(entry.seconds for entry in batch)))
        return activations.of(len(batch), frames, tokens(batch) + 1)

    batches = loader.plan(config.train.epochs - 1)
    largest = max(batches, key=kept)
    return Data(len(loader.entries), loader.seconds, batches, largest, tokens(largest), kept(largest))


def render(found: Plan) -> str:
    """For a person to read."""
    config, keeps = found.config, found.activations
    kept = sum(found.kept.values())
    second, look = (found.frames_per_second * size for size in (keeps.frame, keeps.glance))
    rows = [
        ("parameters", f"{_millions(found.size)}: {_listed(found.parameters, _millions)}"),
        ("vocabulary", f"{found.vocabulary} tokens, each {found.more:,} parameters"),
        ("listener frames", f"{found.frames_per_second:g} a second, from {1 / config.model.frontend.hop:g}"),
        ("lasting memory", f"{_megabytes(kept)}: {_listed(found.kept, _megabytes)}"),
        (
            "a batch's memory",
            f"{_megabytes(second)} a padded second, {_megabytes(keeps.step)} a token, "
            f"{_megabytes(look)} a second times token, {_megabytes(keeps.fixed)} in any",
        ),
    ]
    if found.data is None:
        seconds = config.data.batch_seconds
        step = seconds * look + config.data.batch_utterances * keeps.step
        full = (
            f"{_megabytes(keeps.fixed + seconds * second)}, and up to {_megabytes(step)} for each token of its longest"
        )
        rows.append(("a full batch", f"{seconds:g} padded seconds: {full} transcript"))
    else:
        data, longest = found.data, max(entry.seconds for entry in found.data.largest)
        largest = f"{len(data.largest)} utterances of up to {longest:.1f} s and about {data.tokens} tokens"
        rows += [
            ("data", f"{data.seconds / 3600:.2f} h, {data.utterances:,} utterances"),
            ("updates", f"about {found.updates:,} an epoch, {config.train.epochs * found.updates:,} in all"),
            ("largest batch", f"{largest}: {_megabytes(data.bytes)}"),
            ("memory", f"{_megabytes(kept + data.bytes)}, and what the backward pass of the largest batch works with"),
        ]
    rows += [("left out", line) for line in found.missing]
    return "\n".join(f"{name:18}{line}" for name, line in rows)


def _listed(sizes: Mapping[str, int], unit: Callable[[float], str]) -> str:
    return ", ".join(f"{name} {unit(size)}" for name, size in sizes.items())


def _millions(count: float) -> str:
    return f"{count / 1e6:.2f} M"


def _megabytes(count: float) -> str:
    """Bytes as MB, of which three digits count.

    >>> [_megabytes(count) for count in (12_345_678, 1234, 98_765_432_100)]
    ['12.3 MB', '0.00123 MB', '98,765 MB']
    """
    size = count / 1e6
    return f"{size:,.0f} MB" if size >= 100 else f"{size:.3g} MB"
