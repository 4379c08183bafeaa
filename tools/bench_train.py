"""How fast the model trains: seconds of audio per second, against a plain reference in the same run.

    python tools/bench_train.py [--rounds 15] [--quiet 0.2]
    python tools/bench_train.py attentions [--rounds 15] [--quiet 0.2]

80 mel, three BiLSTM layers of 256 per direction (100 frames/s, then pairs twice: 25 frames/s out), speller LSTM 512,
content attention, vocabulary 1000, batch 8 x 10 s x 40 tokens. The contestants take turns, step by step: others'
load hits them alike. A step = forward, loss, backward, AdamW. Reported are the median over the rounds and the ratio to
the padded reference; a turn in which other processes used more than `--quiet` cores does not count while enough others
do. Before that, all have loaded the same weights and must agree in the loss within 1e-3. The packed reference is so
slow (seconds a step) that it takes part in two rounds only.

`attentions` lists what each kind of attention costs against `dot`, all at their default settings in the same speller
(of the listener's width, so that `dot` needs no projection), taking turns as above. Training = keys, teacher-forced
pass with input feeding, loss, backward, of the speller alone; "whole step" adds what the listener takes, measured in
the same run. Decoding = keys, then 40 beam steps of 8 utterances x 8 beams: scores of the speller, choice of parents.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from plain_las import PlainLas
from torch import Tensor, nn

from las.model.attention import CONFIGS
from las.model.attention_parts import MultiHeadConfig
from las.model.listener import Listener, ListenerConfig
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig
from las.search.scorers import SpellerScorer

FEATURES, VOCABULARY, BATCH, SECONDS, TOKENS = 80, 1000, 8, 10, 40
FRAMES = 100 * SECONDS
BEAMS, WARM_UP, ENOUGH = 8, 2, 5  # rounds before it counts; quiet turns that are enough to leave out the others
PACKED = "plain fp32, packed"


class Model(nn.Module):
    """The project's listener and speller, without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = Listener(ListenerConfig(width=256, reduce=(1, 2, 2), dropout=0.0), FEATURES)
        self.speller = Speller(SpellerConfig(width=512, dropout=0.0), self.listener.width, VOCABULARY)

    def forward(self, features: Tensor, frames: Tensor, tokens: Tensor) -> Tensor:
        heard, lengths = self.listener(features, frames)
        return self.speller(tokens, self.speller.remember(heard, valid_frames(lengths, heard.shape[1])))[0]


@dataclass
class Contestant:
    """A model, its optimizer and what its turns took."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    bfloat16: bool
    times: list[dict[str, float]] = field(default_factory=list)  # s of each part of a step, and others' cores

    def loss(self, features: Tensor, frames: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(features, frames, tokens)
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def turn(self, batch: tuple[Tensor, ...]) -> None:
        own, busy, start = _own_seconds(), _busy_seconds(), time.perf_counter()
        loss = self.loss(*batch)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        others = ((_busy_seconds() - busy) - (_own_seconds() - own)) / (end - start)
        parts = {"forward": forward - start, "backward": backward - forward, "update": end - backward}
        self.times.append({**parts, "step": end - start, "others": others})


def contestants() -> dict[str, Contestant]:
    """The reference and the project's model in both precisions, all with the same weights."""
    torch.manual_seed(0)
    exact, rounded = Model(), Model()
    rounded.load_state_dict(exact.state_dict())
    plain = []
    for packed in (False, True):
        plain.append(PlainLas(FEATURES, 256, (1, 2, 2), 512, 128, 256, VOCABULARY, packed))
        plain[-1].load_las(exact.listener, exact.speller)
    return {
        "plain fp32, padded": Contestant(plain[0], torch.optim.AdamW(plain[0].parameters(), lr=1e-4), False),
        PACKED: Contestant(plain[1], torch.optim.AdamW(plain[1].parameters(), lr=1e-4), False),
        "las fp32": Contestant(exact, torch.optim.AdamW(exact.parameters(), lr=1e-4, fused=True), False),
        "las bf16": Contestant(rounded, torch.optim.AdamW(rounded.parameters(), lr=1e-4, fused=True), True),
    }


def random_batch() -> tuple[Tensor, ...]:
    """Features (B, T, F), frames (B,), tokens read (B, L), tokens wanted (B, L)."""
    tokens = torch.randint(4, VOCABULARY, (BATCH, TOKENS + 1))
    return torch.randn(BATCH, FRAMES, FEATURES), torch.full((BATCH,), FRAMES), tokens[:, :-1], tokens[:, 1:]


def check_agreement(models: dict[str, Contestant], batch: tuple[Tensor, ...]) -> None:
    losses = {name: contestant.loss(*batch).item() for name, contestant in models.items()}
    print("loss before training:", ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items()))
    assert max(losses.values()) - min(losses.values()) < 1e-3, "the contestants do not compute the same loss"


def median(times: list[dict[str, float]], part: str, quiet: float, enough: int) -> tuple[float, int]:
    """Median of a part of the step over the quiet turns, or over all where too few were quiet; and how many."""
    calm = [turn for turn in times if turn["others"] <= quiet]
    counted = calm if len(calm) >= enough else times
    return statistics.median(turn[part] for turn in counted), len(counted)


def report(models: dict[str, Contestant], quiet: float, enough: int) -> None:
    parts = ("forward", "backward", "update", "step")
    print("| | forward s | backward s | update s | step s | x real time | ratio | without update | turns counted |")
    print("|---|---|---|---|---|---|---|---|---|")
    first: tuple[float, float] | None = None
    for name, contestant in models.items():
        figures = {part: median(contestant.times, part, quiet, enough)[0] for part in parts}
        turns = median(contestant.times, "step", quiet, enough)[1]
        step, learn = figures["step"], figures["forward"] + figures["backward"]
        first = first or (step, learn)
        print(
            f"| {name} | " + " | ".join(f"{figures[part]:.3f}" for part in parts),
            f"| {BATCH * SECONDS / step:.0f} | {first[0] / step:.2f} | {first[1] / learn:.2f} |",
            f"{turns} of {len(contestant.times)} |",
        )


class Attentive:
    """A speller with one kind of attention, over listened frames that are given; what its turns took."""

    def __init__(self, speller: Speller):
        self.speller = speller
        self.training: list[dict[str, float]] = []
        self.decoding: list[dict[str, float]] = []
        self.parents = torch.randint(BEAMS, (TOKENS, BATCH, BEAMS))
        self.tokens = torch.randint(4, VOCABULARY, (TOKENS, BATCH, BEAMS))

    def train(self, heard: Tensor, valid: Tensor, tokens: Tensor, targets: Tensor) -> None:
        self.speller.zero_grad()
        heard = heard.detach().requires_grad_()
        logits, _ = self.speller(tokens, self.speller.remember(heard, valid))
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()

    @torch.inference_mode()
    def decode(self, heard: Tensor, valid: Tensor) -> None:
        scorer = SpellerScorer(self.speller, self.speller.remember(heard, valid), never=())
        state, everyone = scorer.start(), torch.arange(BATCH)
        state = scorer.select(state, everyone, torch.zeros(BATCH, BEAMS, dtype=torch.int64))
        for tokens, parents in zip(self.tokens, self.parents, strict=True):
            _, state = scorer.step(tokens, state)
            state = scorer.select(state, everyone, parents)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """The seconds that something takes, and the cores that others used meanwhile."""
    own, busy, start = _own_seconds(), _busy_seconds(), time.perf_counter()
    work()
    step = time.perf_counter() - start
    return {"step": step, "others": ((_busy_seconds() - busy) - (_own_seconds() - own)) / step}


def compare_attentions(rounds: int, quiet: float) -> None:
    """Print the table of what each kind costs against dot."""
    torch.manual_seed(0)
    configs = {"dot": CONFIGS["dot"]("dot")} | {kind: config(kind) for kind, config in CONFIGS.items()}
    configs["multi_head, additive"] = MultiHeadConfig(energy="additive")
    listener = Listener(ListenerConfig(width=256, reduce=(1, 2, 2), dropout=0.0), FEATURES)
    kinds = {
        kind: Attentive(
            Speller(SpellerConfig(listener.width, dropout=0.0, attention=config), listener.width, VOCABULARY)
        )
        for kind, config in configs.items()
    }
    features, frames, tokens, targets = random_batch()
    with torch.no_grad():
        heard, lengths = listener(features, frames)
    valid = valid_frames(lengths, heard.shape[1])
    listening: list[dict[str, float]] = []
    chance = random.Random(0)

    def listen() -> None:
        listener.zero_grad()
        listener(features, frames)[0].sum().backward()

    for round_number in range(WARM_UP + rounds):
        round_of_turns: list[tuple[list[dict[str, float]], Callable[[], None]]] = [
            (listening, listen),
            *((one.training, lambda one=one: one.train(heard, valid, tokens, targets)) for one in kinds.values()),
            *((one.decoding, lambda one=one: one.decode(heard, valid)) for one in kinds.values()),
        ]
        for times, work in chance.sample(round_of_turns, len(round_of_turns)):
            times.append(timed(work))
            if round_number < WARM_UP:
                times.clear()
    heard_in = median(listening, "step", quiet, ENOUGH)[0]
    print(f"listener: {1000 * heard_in:.0f} ms, forward and backward\n")
    print("| attention | parameters | training ms | ratio | whole step, ratio | decoding ms | ratio | turns counted |")
    print("|---|---|---|---|---|---|---|---|")
    first = tuple(median(times, "step", quiet, ENOUGH)[0] for times in (kinds["dot"].training, kinds["dot"].decoding))
    for kind, one in kinds.items():
        assert one.speller.attention is not None
        size = sum(weight.numel() for weight in one.speller.attention.parameters())
        training, turns = median(one.training, "step", quiet, ENOUGH)
        decoding, more = median(one.decoding, "step", quiet, ENOUGH)
        print(
            f"| {kind} | {size:,} | {1000 * training:.0f} | {training / first[0]:.2f}",
            f"| {(heard_in + training) / (heard_in + first[0]):.2f}",
            f"| {1000 * decoding:.0f} | {decoding / first[1]:.2f} | {turns}, {more} of {rounds} |",
        )


def _busy_seconds() -> float:
    """Seconds for which cores of this machine worked for programs, since it started; 0 where there is no /proc."""
    if platform.system() != "Linux":
        return 0.0
    with open("/proc/stat", encoding="ascii") as stat:
        return sum(int(ticks) for ticks in stat.readline().split()[1:4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:2]) if platform.system() == "Linux" else 0.0


def compare_with_plain(rounds: int, quiet: float) -> None:
    """Print the table of the project's model against the plain one."""
    models, batch = contestants(), random_batch()
    check_agreement(models, batch)
    for round_number in range(WARM_UP + rounds):
        for name, contestant in models.items():
            if name == PACKED and round_number not in (1, 2, 3):
                continue
            contestant.turn(batch)
            if round_number < WARM_UP:
                contestant.times.clear()
    report(models, quiet, ENOUGH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=("plain", "attentions"), default="plain", help="what is compared")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quiet", type=float, default=0.2, help="cores that others may use in a turn that counts")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    compare = compare_attentions if arguments.what == "attentions" else compare_with_plain
    compare(arguments.rounds, arguments.quiet)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
