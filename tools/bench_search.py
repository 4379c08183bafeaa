"""How fast transcripts are searched for: ms per step and utterance, against a plain reference in the same run.

    python tools/bench_search.py [--rounds 7]
    python tools/bench_search.py --table [--plot tools/search_cost.png]

80 mel, four BiLSTM layers of 512 per direction (100 frames/s, 25 frames/s out), speller LSTM 512 with location
attention, vocabulary 1000, random weights; batch 8 x 10 s, beam 10, transcripts of exactly 40 tokens. The contestants
take turns: others' load hits them alike. Reported are medians: seconds of the listener, milliseconds of the search per
step and utterance (a step is a token, or the end), the real-time factor of both together, and the CPU time of the
search, in which others' load does not show. Before that all search with the same weights: in fp32 the best transcripts
must be those of the plain search, scores within 1e-3.

--table: CPU time and memory of the search alone against beam, batch and length, in bf16 with CTC and language model.
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property

import torch
from plain_search import PlainSearch
from torch import Tensor, nn

from las.model.attention_history import LocationConfig
from las.model.ctc import CtcBranch
from las.model.language_model import LanguageModel, LanguageModelConfig, LanguageModelSteps
from las.model.listener import Listener, ListenerConfig
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig
from las.search.beam import Hypothesis, SearchConfig, beam_search
from las.search.ctc_prefix import CtcPrefixScorer
from las.search.language_model import LanguageModelScorer
from las.search.scorers import Part, SpellerScorer

FEATURES, VOCABULARY, BATCH, BEAM, SECONDS, TOKENS = 80, 1000, 8, 10, 10, 40
REDUCE = (1, 2, 2, 1)
BLANK, UNKNOWN, BEGIN, END = 0, 1, 2, 3
CANDIDATES = 20


class Model(nn.Module):
    """The project's listener, speller and CTC branch, and the language model."""

    def __init__(self) -> None:
        super().__init__()
        self.listener = Listener(ListenerConfig(width=512, reduce=REDUCE, dropout=0.0), FEATURES)
        width = self.listener.width
        self.speller = Speller(SpellerConfig(width=512, dropout=0.0, attention=LocationConfig()), width, VOCABULARY)
        self.ctc = CtcBranch(width, VOCABULARY, 0.0)
        self.language = LanguageModel(LanguageModelConfig(embedding=256, width=512, layers=2), VOCABULARY)

    @cached_property
    def steps(self) -> LanguageModelSteps:
        return LanguageModelSteps(self.language, never=(BLANK, UNKNOWN, BEGIN))

    def search(self, heard: Tensor, lengths: Tensor, beam: int, tokens: int, joint: bool) -> list[list[Hypothesis]]:
        memory = self.speller.remember(heard, valid_frames(lengths, heard.shape[1]))
        parts, refine = [Part("speller", SpellerScorer(self.speller, memory, (BLANK, UNKNOWN, BEGIN)), 1.0)], []
        if joint:
            scores = self.ctc(heard).float().log_softmax(-1)
            parts.append(Part("language model", LanguageModelScorer(self.steps, len(heard)), 0.3))
            refine = [Part("ctc", CtcPrefixScorer(scores, lengths, BLANK, END), 0.3)]
        count = torch.full((len(heard),), tokens)
        config = SearchConfig(beam=beam, length_exponent=0.0, ctc_candidates=CANDIDATES)
        return beam_search(parts, count, config, BEGIN, END, beam, count, refine)


@dataclass
class Contestant:
    """Who listens and searches, and what its turns took."""

    model: nn.Module
    joint: bool = False
    times: list[dict[str, float]] = field(default_factory=list)  # s

    def listen(self, features: Tensor) -> Tensor:
        if isinstance(self.model, PlainSearch):
            return self.model.listen(features)
        dtype = self.model.speller.output.weight.dtype
        return self.model.listener(features.to(dtype), torch.full((len(features),), features.shape[1]))[0]

    def search(self, heard: Tensor) -> tuple[list[list[int]], list[float]]:
        """The best transcript of each utterance and its log-probability."""
        if isinstance(self.model, PlainSearch):
            tokens, totals = self.model.search(heard, BEAM, TOKENS, BEGIN, END)
            return tokens[:, 0].tolist(), totals[:, 0].tolist()
        lengths = torch.full((len(heard),), heard.shape[1])
        found = [one[0] for one in self.model.search(heard, lengths, BEAM, TOKENS, self.joint)]
        return [list(one.tokens) for one in found], [one.log_probability for one in found]

    def turn(self, features: Tensor) -> None:
        start = time.perf_counter()
        heard = self.listen(features)
        middle, busy = time.perf_counter(), time.process_time()
        self.search(heard)
        end, done = time.perf_counter(), time.process_time()
        self.times.append({"listen": middle - start, "search": end - middle, "cpu": done - busy})


def contestants() -> dict[str, Contestant]:
    """The reference and the project's model in both precisions, all with the same weights."""
    torch.manual_seed(0)
    exact = Model().eval()
    for name, weight in exact.speller.named_parameters():
        if "attention" in name or "output" in name:
            weight.data.mul_(4.0)  # random weights as they are look everywhere alike and prefer no token
    plain = PlainSearch(FEATURES, 512, REDUCE, 512, 128, VOCABULARY).eval()
    plain.load_las(exact.listener, exact.speller)
    plain.output.bias.data[[BLANK, UNKNOWN, BEGIN]] = -1e9
    rounded = copy.deepcopy(exact).bfloat16()
    return {
        "plain fp32": Contestant(plain),
        "las fp32": Contestant(exact),
        "las bf16": Contestant(rounded),
        "las fp32 with CTC and LM": Contestant(exact, joint=True),
        "las bf16 with CTC and LM": Contestant(rounded, joint=True),
    }


def check_agreement(models: dict[str, Contestant], features: Tensor) -> None:
    (tokens, totals), (ours, scores) = (
        models[name].search(models[name].listen(features)) for name in ("plain fp32", "las fp32")
    )
    worst = max(abs(one - other) for one, other in zip(totals, scores, strict=True))
    print(f"best transcripts alike: {sum(map(list.__eq__, tokens, ours))} of {BATCH}, scores within {worst:.1e}")
    assert worst < 1e-3, "the contestants do not search alike"


def report(models: dict[str, Contestant]) -> None:
    print("| | listener s | search s | ms per step and utterance | ratio | CPU ms | ratio | real-time factor | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    first: list[float] = []
    for name, contestant in models.items():
        figures = {part: statistics.median(turn[part] for turn in contestant.times) for part in contestant.times[0]}
        steps = BATCH * (TOKENS + 1)
        step, cpu = 1000 * figures["search"] / steps, 1000 * figures["cpu"] / steps
        factor = (figures["listen"] + figures["search"]) / (BATCH * SECONDS)
        first = first or [step, cpu, factor]
        print(
            f"| {name} | {figures['listen']:.3f} | {figures['search']:.3f} | {step:.2f} | {step / first[0]:.2f} |",
            f"{cpu:.2f} | {cpu / first[1]:.2f} | {factor:.4f} | {factor / first[2]:.2f} |",
        )


SWEEPS = {  # what grows -> batch, beam, seconds of each row
    "beam": [(8, beam, 10.0) for beam in (1, 2, 4, 8, 16, 32, 64)],
    "batch": [(batch, 10, 10.0) for batch in (1, 2, 4, 8, 16, 32, 64)],
    "seconds of audio": [(1, 10, seconds) for seconds in (5.0, 10.0, 30.0, 60.0, 120.0, 300.0)],
}


def table(plot: str | None) -> None:
    """Each row in a process of its own, whose greatest memory is then that of its search."""
    print("| batch | beam | s of audio | CPU ms per step | CPU ms per step, utterance, beam and s of audio | MB |")
    print("|---|---|---|---|---|---|")
    found: dict[str, list[tuple[float, float, float]]] = {}
    for place, (name, rows) in enumerate(SWEEPS.items()):
        for row in rows:
            words = [sys.executable, __file__, "--one", *map(str, row)]
            batch, beam, seconds = row
            step, memory = map(float, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
            share = step / batch / beam / seconds
            print(f"| {batch} | {beam} | {seconds:g} | {step:.2f} | {share:.4f} | {memory:.0f} |", flush=True)
            found.setdefault(name, []).append(((beam, batch, seconds)[place], step, memory))
    if plot is not None:
        draw(found, plot)


def draw(found: dict[str, list[tuple[float, float, float]]], path: str) -> None:
    """Time and memory against what grows, both axes logarithmic: a straight line of this slope is linear growth."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, columns = pyplot.subplots(2, len(found), figsize=(10, 5), sharey="row", layout="constrained")
    for (above, below), (name, rows) in zip(columns.T, found.items(), strict=True):
        sizes, steps, memory = zip(*rows, strict=True)
        above.loglog(sizes, steps, "o-")
        above.loglog(sizes, [steps[-1] * size / sizes[-1] for size in sizes], ":", color="gray")
        below.semilogx(sizes, memory, "o-")
        below.set_xlabel(name)
    columns[1, 0].set_ylim(bottom=0)
    columns[0, 0].set_ylabel("CPU ms per step\n(dotted: linear)")
    columns[1, 0].set_ylabel("greatest memory, MB")
    figure.savefig(path)


def one_row(batch: int, beam: int, seconds: float) -> None:
    """Prints milliseconds of CPU time per step, and the greatest memory of the process in MB."""
    tokens = 20
    torch.manual_seed(0)
    model = Model().bfloat16().eval()
    heard = torch.randn(batch, int(25 * seconds), model.listener.width, dtype=torch.bfloat16)
    lengths = torch.full((batch,), heard.shape[1])
    model.search(heard, lengths, beam, 2, True)
    times = []
    for _ in range(3):
        start = time.process_time()
        model.search(heard, lengths, beam, tokens, True)
        times.append(1000 * (time.process_time() - start) / (tokens + 1))
    print(statistics.median(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--table", action="store_true", help="against beam, batch and length")
    parser.add_argument("--plot", metavar="FILE.png", help="the same as a picture")
    parser.add_argument("--one", nargs=3, type=float, metavar=("BATCH", "BEAM", "SECONDS"), help="one row of --table")
    arguments = parser.parse_args()
    if arguments.one:
        return one_row(int(arguments.one[0]), int(arguments.one[1]), arguments.one[2])
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    if arguments.table:
        return table(arguments.plot)
    models = contestants()
    features = torch.randn(BATCH, 100 * SECONDS, FEATURES)
    check_agreement(models, features)
    for round_number in range(1 + arguments.rounds):
        for contestant in models.values():
            contestant.turn(features)
            if round_number < 1:  # warming up
                contestant.times.clear()
    report(models)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
