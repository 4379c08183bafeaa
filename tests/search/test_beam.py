"""Beam search against tables one sees by eye, against a slow search over lists, and against trying everything."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import NEVER, Found, Score, Tokens, reference_search
from torch import Tensor

from las.errors import UserError
from las.model.attention import CONFIGS
from las.model.masking import valid_frames
from las.model.speller import Speller, SpellerConfig
from las.search.beam import Hypothesis, SearchConfig, beam_search
from las.search.ctc_prefix import CtcPrefixScorer
from las.search.hot_words import HotWordScorer
from las.search.scorers import Ending, Part, SpellerScorer, internal_language_model

BEGIN = 0


def every_transcript(score: Score, limit: int, exponent: float, end: int) -> list[tuple[Tokens, float]]:
    """All transcripts of at most `limit` tokens with their scores, best first."""
    vocabulary = [token for token in range(len(score(()))) if token != end]
    scored = []
    for length in range(limit + 1):
        for tokens in itertools.product(vocabulary, repeat=length):
            total = sum(score(tokens[:place])[token] for place, token in enumerate((*tokens, end)))
            if total > NEVER:
                scored.append((tokens, total / (length + 1) ** exponent))
    return sorted(scored, key=lambda one: -one[1])


@dataclass
class Prefixes:
    """A scorer that remembers every beam's whole past, and looks up each utterance's own scores for it."""

    scores: list[Score]
    ends: Callable[[Tokens], float] = len  # what `finish` says of a transcript
    steps: int = 0

    def start(self) -> tuple[list[int], list[list[Tokens | None]]]:
        return list(range(len(self.scores))), [[None] for _ in self.scores]

    def step(self, tokens: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        self.steps += 1
        numbers, pasts = state
        pasts = [
            [() if past is None else (*past, token) for past, token in zip(*both, strict=True)]
            for both in zip(pasts, tokens.tolist(), strict=True)
        ]
        table = [[self.scores[number](past) for past in row] for number, row in zip(numbers, pasts, strict=True)]
        return torch.tensor(table, dtype=torch.float64), (numbers, pasts)

    def select(self, state: tuple, utterances: Tensor, parents: Tensor) -> tuple:
        numbers, pasts = state
        chosen = zip(utterances.tolist(), parents.tolist(), strict=True)
        return [numbers[row] for row in utterances.tolist()], [[pasts[row][one] for one in own] for row, own in chosen]

    def finish(self, state: tuple) -> Tensor:
        return torch.tensor([[self.ends(past) for past in row] for row in state[1]], dtype=torch.float64)


@dataclass
class PrefixCandidates(Prefixes):
    """The same for candidates alone; an utterance whose scores are NaN for the others shows that they are not read."""

    @property
    def vocabulary(self) -> int:
        return len(self.scores[0](()))

    def step(self, tokens: Tensor, candidates: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        scores, state = super().step(tokens, state)
        return scores.gather(2, candidates), state


def search(
    scores: list[Score], limits: list[int], end: int, beams: int = 1, exponent: float = 0.0, best: int = 1
) -> list[list[Hypothesis]]:
    config = SearchConfig(beam=beams, length_exponent=exponent)
    parts = [Part("table", Prefixes(scores), 1.0)]
    return beam_search(parts, torch.tensor(limits, dtype=torch.int64), config, BEGIN, end, best)


def by_table(table: dict[str, dict[str, float]]) -> Score:
    """Probabilities written with letters, "." for the end: tokens a, b, c are 1, 2, 3, the end is 0."""

    def score(tokens: Tokens) -> list[float]:
        row = table.get("".join(".abc"[token] for token in tokens), {})
        return [math.log(row[letter]) if row.get(letter) else NEVER for letter in ".abc"]

    return score


def spelled(hypotheses: list[Hypothesis]) -> list[tuple[str, float]]:
    return [
        ("".join(".abc"[token] for token in one.tokens), round(math.exp(one.log_probability), 6)) for one in hypotheses
    ]


GARDEN_PATH = by_table(
    {
        "": {"a": 0.6, "b": 0.4},
        "a": {".": 0.5, "a": 0.3, "b": 0.2},
        "b": {".": 0.9, "c": 0.1},
        "aa": {".": 1.0},
        "ab": {".": 1.0},
        "bc": {".": 1.0},
    }
)


def test_greedy_takes_the_garden_path_and_two_beams_do_not():
    assert spelled(search([GARDEN_PATH], [2], end=0)[0]) == [("a", 0.3)]
    assert spelled(search([GARDEN_PATH], [2], end=0, beams=2)[0]) == [("b", 0.36)]


def test_the_best_few_by_eye():
    found = search([GARDEN_PATH], [2], end=0, beams=5, best=4)[0]
    assert spelled(found) == [("b", 0.36), ("a", 0.3), ("aa", 0.18), ("ab", 0.12)]
    assert [one.complete for one in found] == [True, True, False, False]


def test_one_that_ends_leaves_its_place_to_others():
    found = search([GARDEN_PATH], [2], end=0, beams=2, best=4)[0]
    assert spelled(found) == [("b", 0.36), ("a", 0.3)]  # both places ended in the same step, nobody is left
    table = {"": {".": 0.5, "a": 0.3, "b": 0.2}, "a": {".": 0.6, "c": 0.4}, "ac": {".": 1.0}}
    assert spelled(search([by_table(table)], [2], end=0, beams=2, best=4)[0]) == [("", 0.5), ("a", 0.18), ("ac", 0.12)]


def test_length_normalisation_by_eye():
    def score(tokens: Tokens) -> list[float]:
        return [[-2.0, -1.0], [-9.0, -1.0], [-1.0, -9.0]][len(tokens)]  # end at once: -2; after two tokens: -3

    for exponent, tokens, value in [(0.0, (), -2.0), (1.0, (1, 1), -1.0), (0.5, (1, 1), -3 / math.sqrt(3))]:
        best = search([score], [2], end=0, beams=4, exponent=exponent)[0][0]
        assert best.tokens == tokens
        assert best.score == pytest.approx(value, abs=1e-12)


def test_at_the_limit_only_the_end_is_allowed():
    def score(tokens: Tokens) -> list[float]:
        return [-5.0, -0.5]

    for limit in range(4):
        total = -5 - 0.5 * limit
        assert search([score], [limit], end=0) == [[Hypothesis((1,) * limit, total, total, False, {"table": total})]]


def test_equal_scores_the_earlier_parent_then_the_smaller_token():
    found = search([lambda tokens: [-1.0, -1.0, -1.0]], [2], end=2, beams=3, best=9)[0]
    assert [one.tokens for one in found] == [(), (0,), (0, 0), (0, 1)]


def test_an_utterance_that_cannot_end_has_no_hypothesis():
    endless = by_table({"": {"a": 1.0}, "a": {"a": 1.0}, "aa": {"a": 1.0}})
    silent = by_table({"": {}})
    assert search([endless, silent, GARDEN_PATH], [2, 2, 2], end=0, beams=2)[:2] == [[], []]


def test_no_utterances():
    assert search([], [], end=0) == []


@pytest.mark.parametrize("beams", [1, 3])
def test_scores_that_are_not_numbers_are_refused(beams):
    def score(tokens: Tokens) -> list[float]:
        return [-1.0, -0.1, math.nan if tokens == (1,) else -3.0]

    with pytest.raises(UserError, match="scores that are not numbers; its weights may be damaged"):
        search([GARDEN_PATH, score][1:], [3], end=0, beams=beams)


def test_what_a_dead_beam_scores_does_not_matter():
    """With more beams than there are continuations some hold nothing, and a scorer may say anything about those."""

    def score(tokens: Tokens) -> list[float]:
        if 2 in tokens or 0 in tokens:
            return [math.nan, math.inf, 0.0]
        return [-1.0, -0.5, NEVER]

    assert [one.tokens for one in search([score], [3], end=0, beams=8, best=9)[0]] == [(), (1,), (1, 1), (1, 1, 1)]


def test_infinite_scores_are_no_numbers_either():
    with pytest.raises(UserError, match="scores that are not numbers"):
        search([lambda tokens: [-1.0, math.inf]], [3], end=0, beams=2)


@pytest.mark.parametrize("refine", [False, True])
def test_parts_that_know_different_tokens_are_named(refine):
    speller = Part("speller", Prefixes([lambda tokens: [-1.0, -1.0, -2.0]]), 1.0)
    scores = [lambda tokens: [-1.0, -1.0]]
    other = Part("lm", PrefixCandidates(scores) if refine else Prefixes(scores), 0.3)
    parts, rest = ([speller], [other]) if refine else ([speller, other], [])
    with pytest.raises(
        UserError, match=r"different numbers of tokens \(speller 3, lm 2\); they need the same tokenizer"
    ):
        beam_search(parts, torch.tensor([3]), SearchConfig(), BEGIN, 0, refine=rest)


def test_the_end_waits_until_it_is_likely_enough():
    """End -2, others -1: it is above 2.5 x the best other, not above 1.5 x it; at the limit it comes anyway."""
    parts = [Part("table", Prefixes([lambda tokens: [-2.0, -1.0]]), 1.0)]
    for threshold, tokens in [(2.5, ()), (1.5, (1, 1))]:
        config = SearchConfig(beam=2, length_exponent=0.0, end_threshold=threshold)
        assert beam_search(parts, torch.tensor([2]), config, BEGIN, 0)[0][0].tokens == tokens


def test_a_run_of_tokens_comes_once():
    parts = [Part("table", Prefixes([lambda tokens: [-9.0, -0.1, -0.2]]), 1.0)]
    for run, tokens in [(0, (1, 1, 1, 1)), (1, (1, 2)), (2, (1, 1, 2, 1))]:
        config = SearchConfig(beam=1, length_exponent=0.0, no_repeat=run)
        assert beam_search(parts, torch.tensor([4]), config, BEGIN, 0)[0][0].tokens == tokens


def test_search_goes_on_while_a_reward_may_turn_the_tables():
    parts = [Part("table", Prefixes([lambda tokens: [-0.1, -1.0]]), 1.0)]
    for reward, length in [(0.0, 0), (0.5, 0), (1.5, 5)]:
        config = SearchConfig(beam=2, length_exponent=0.0, token_reward=reward)
        assert len(beam_search(parts, torch.tensor([5]), config, BEGIN, 0)[0][0].tokens) == length


def test_what_is_impossible_stays_so_when_it_is_subtracted():
    parts = [
        Part("speller", Prefixes([lambda tokens: [-1.0, -0.5, -0.6]]), 1.0),
        Part("internal", Prefixes([lambda tokens: [-1.0, NEVER, -3.0]]), -0.5),
    ]
    found = beam_search(parts, torch.tensor([1]), SearchConfig(beam=3, length_exponent=0.0), BEGIN, 0, best=5)[0]
    assert [one.tokens for one in found] == [(2,), ()]
    assert [one.score for one in found] == pytest.approx([-1.6 + 2.0, -0.5])


def test_search_stops_when_no_beam_can_win_any_more():
    scorer = Prefixes([lambda tokens: [-0.1, -5.0, -5.0]])
    beam_search([Part("table", scorer, 1.0)], torch.tensor([50]), SearchConfig(beam=3, length_exponent=0.0), BEGIN, 0)
    assert scorer.steps == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"longest": float("inf")}, "search.longest inf must be a finite number"),
        ({"token_reward": float("nan")}, "search.token_reward nan must be a finite number"),
        ({"beam": 0}, "search.beam 0 must be at least 1"),
        ({"ctc_weight": 1.0}, r"search.ctc_weight 1\.0 must be at least 0 and below 1"),
        ({"length_exponent": -0.1}, "length_exponent must be 0 or more"),
        ({"longest": 0.0}, "longest above 0"),
        ({"ctc_candidates": 0}, "search.ctc_candidates 0 must be at least 1"),
        ({"shortest": 1.5}, r"search.shortest 1\.5 must be at least 0 and at most longest 1\.0"),
        ({"piece": -1.0}, r"search.piece -1\.0 must be 0 or more"),
        ({"piece": 5.0, "whole": 4.0}, r"search.piece 5\.0 must be 0 or more, and whole 4\.0 not less, or 0"),
        ({"other_speeds": (0.9, 0.0)}, r"search.other_speeds \[0\.9, 0\.0\]: each between 0\.5 and 2, and not 1"),
        ({"other_speeds": (1.0,)}, r"search.other_speeds \[1\.0\]: each between"),
        ({"temperature": 0.0}, r"search.temperature 0\.0 must be above 0"),
        *(
            ({name: -1}, f"search.{name} -1 must be 0 or more")
            for name in ("coverage", "end_threshold", "no_repeat", "internal_weight", "hot_word_bonus", "patience")
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        SearchConfig(**values)


# Random tables


def row_of(table: list[list[float]]) -> Score:
    """Scores from a table whose row the past picks."""
    return lambda tokens: table[sum((place + 3) * (token + 1) ** 2 for place, token in enumerate(tokens)) % len(table)]


def coverage_of(tokens: Tokens) -> float:
    """Something to say at the end, never above 0."""
    return -0.37 * ((sum(tokens) + len(tokens)) % 5)


@dataclass(frozen=True)
class Case:
    """Random scores of some utterances by some parts, and how to search them."""

    config: SearchConfig
    # part -> utterance -> row -> scores; the last one of a candidate scorer
    tables: list[list[list[list[float]]]] = field(repr=False)
    weights: list[float]
    limits: list[int]
    least: list[int]
    end: int
    best: int
    ending: float  # weight of what the first part says at the end
    refine: bool  # whether there is a candidate scorer

    def search(self, rows: list[int] | None = None) -> list[list[Hypothesis]]:
        """Those utterances together, all of them unless told."""
        rows = list(range(len(self.limits))) if rows is None else rows
        scores = [[row_of(table[row]) for row in rows] for table in self.tables]
        parts = [
            Part(f"part {number}", Prefixes(own, coverage_of), weight)
            for number, (own, weight) in enumerate(zip(scores[:-1], self.weights, strict=False))
        ]
        if self.ending:
            parts[0] = replace(parts[0], ending=Ending("coverage", self.ending))
        refine = [Part("refine", PrefixCandidates(scores[-1]), self.weights[-1])] if self.refine else []
        limits, least = (torch.tensor([all_[row] for row in rows]) for all_ in (self.limits, self.least))
        return beam_search(parts, limits, self.config, BEGIN, self.end, self.best, least, refine)

    def reference(self, row: int) -> list[Found]:
        scored = [(row_of(table[row]), weight) for table, weight in zip(self.tables, self.weights, strict=True)]
        return reference_search(
            scored[:-1], self.limits[row], self.config, self.end, self.best, min(self.least[row], self.limits[row]),
            scored[-1:] if self.refine else (), lambda tokens: self.ending * coverage_of(tokens),
        )  # fmt: skip


KINDS = ("smooth", "steps", "halves", "holes")


@st.composite
def tables_of(draw: st.DrawFn, batch: int, vocabulary: int) -> list[list[list[float]]]:
    """Of each utterance 23 rows of log-probabilities."""
    generator = torch.manual_seed(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(KINDS))
    scale = draw(st.sampled_from([0.3, 2.0]))
    tables = (scale * torch.randn(batch, 23, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)
    if kind == "steps":  # many ties
        tables = (tables * 2).round() / 2
    elif kind == "halves":  # ties everywhere
        tables = torch.where(tables < tables.mean(), -1.0, -0.5).double()
    elif kind == "holes":
        tables = tables.masked_fill(torch.rand(tables.shape, generator=generator) < 0.3, NEVER)
    return tables.tolist()


@st.composite
def cases(draw: st.DrawFn, most_tokens: int = 6, most_limit: int = 7, plain: bool = False) -> Case:
    batch, vocabulary = draw(st.integers(1, 7)), draw(st.integers(1, most_tokens))
    count = 1 if plain else draw(st.integers(1, 3))
    tables = [draw(tables_of(batch, vocabulary)) for _ in range(count + 1)]
    weights = [1.0] if plain else [draw(st.sampled_from([1.0, 0.5, 0.7]))]
    weights += [draw(st.sampled_from([0.25, 0.5, -0.25, -0.3])) for _ in range(count - 1)]
    config = SearchConfig(
        beam=draw(st.integers(1, 8)),
        length_exponent=draw(st.sampled_from([0.0, 0.5, 0.6, 1.0, 1.7])),
    )
    if not plain:
        config = replace(
            config,
            ctc_candidates=draw(st.integers(1, 6)),
            token_reward=draw(st.sampled_from([0.0, 0.0, 0.25, 1.0, -0.3])),
            end_threshold=draw(st.sampled_from([0.0, 0.0, 1.0, 1.5])),
            no_repeat=draw(st.sampled_from([0, 0, 1, 2, 3])),
            patience=draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])),
        )
    some = st.lists(st.integers(0, most_limit), min_size=batch, max_size=batch)
    return Case(
        config, tables, [*weights, 0.5], draw(some), [0] * batch if plain else [one // 2 for one in draw(some)],
        draw(st.integers(0, vocabulary - 1)), draw(st.integers(1, 4)),
        0.0 if plain else draw(st.sampled_from([0.0, 0.5])), False if plain else draw(st.booleans()),
    )  # fmt: skip


QUICK = settings(max_examples=120, deadline=None, derandomize=True)


def assert_same(ours: list[Hypothesis], theirs: list[Found]) -> None:
    assert [(one.tokens, one.complete) for one in ours] == [(one.tokens, one.complete) for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-9)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-9)


@settings(QUICK, max_examples=250)
@given(cases())
def test_equals_the_slow_search_over_lists(case):
    for row, ours in enumerate(case.search()):
        assert_same(ours, case.reference(row))


@QUICK
@given(cases())
def test_the_parts_scores_add_up(case):
    names = [f"part {number}" for number in range(len(case.tables) - 1)] + ["refine"] * case.refine
    weights = case.weights if case.refine else case.weights[:-1]
    for hypotheses in case.search():
        for one in hypotheses:
            ending = one.scores.get("coverage", 0.0)
            assert list(one.scores) == names + ["coverage"] * bool(case.ending)
            total = sum(weight * one.scores[name] for name, weight in zip(names, weights, strict=True))
            total += case.config.token_reward * len(one.tokens)
            assert one.log_probability == pytest.approx(total, abs=1e-9)
            length = (len(one.tokens) + 1) ** case.config.length_exponent
            assert one.score == pytest.approx(total / length + case.ending * ending, abs=1e-9)


@QUICK
@given(cases())
def test_a_result_does_not_depend_on_neighbours(case):
    for row, ours in enumerate(case.search()):
        assert [ours] == case.search([row])


@QUICK
@given(cases(plain=True))
def test_one_beam_is_greedy(case):
    case = replace(case, config=replace(case.config, beam=1))
    for row, (found, limit) in enumerate(zip(case.search(), case.limits, strict=True)):
        tokens: Tokens = ()
        score = row_of(case.tables[0][row])
        while len(tokens) < limit and (one := score(tokens)).index(max(one)) != case.end and max(one) > NEVER:
            tokens = (*tokens, one.index(max(one)))
        assert [one.tokens for one in found] == ([tokens] if score(tokens)[case.end] > NEVER else [])


@settings(QUICK, max_examples=40)
@given(cases(most_tokens=3, most_limit=3, plain=True))
def test_a_beam_as_wide_as_all_transcripts_finds_the_best_of_all(case):
    case = replace(case, config=replace(case.config, beam=3**4))
    exponent = case.config.length_exponent
    for row, (ours, limit) in enumerate(zip(case.search(), case.limits, strict=True)):
        everything = every_transcript(row_of(case.tables[0][row]), limit, exponent, case.end)
        assert [one.score for one in ours] == pytest.approx([value for _, value in everything[: case.best]], abs=1e-9)
        assert {one.tokens: pytest.approx(one.score, abs=1e-9) for one in ours}.items() <= dict(everything).items()


# Speller and CTC together

VOCABULARY, BLANK, UNKNOWN, BOS, EOS = 7, 0, 1, 2, 3


def speller_alone(speller: Speller, frames: Tensor) -> Score:
    """What the speller says of one unpadded utterance (S, H) after some tokens, computed from the beginning."""
    memory = speller.remember(frames[None], torch.ones(1, len(frames), dtype=torch.bool))

    def score(tokens: Tokens) -> list[float]:
        logits = speller(torch.tensor([[BOS, *tokens]]), memory)[0][0, -1]
        logits[[BLANK, UNKNOWN, BOS]] = NEVER
        return logits.log_softmax(0).tolist()

    return score


def ctc_alone(log_probabilities: Tensor) -> Score:
    """What CTC says of one utterance (S, V) after some tokens: the sum over all its alignments."""
    table = log_probabilities.tolist()
    whole: dict[Tokens, float] = {}
    beginning: dict[Tokens, float] = {}
    for path in itertools.product(range(VOCABULARY), repeat=len(table)):
        probability = math.exp(sum(row[token] for row, token in zip(table, path, strict=True)))
        tokens = tuple(token for token, _ in itertools.groupby(path) if token != BLANK)
        whole[tokens] = whole.get(tokens, 0.0) + probability
        for length in range(len(tokens) + 1):
            beginning[tokens[:length]] = beginning.get(tokens[:length], 0.0) + probability

    def score(tokens: Tokens) -> list[float]:
        if tokens not in beginning:
            return [NEVER] * VOCABULARY
        probabilities = [beginning.get((*tokens, token), 0.0) for token in range(VOCABULARY)]
        probabilities[EOS] = whole.get(tokens, 0.0)
        return [math.log(one / beginning[tokens]) if one else NEVER for one in probabilities]

    return score


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2, 5, 8])
@pytest.mark.parametrize("kind", ["content", "location"])
@pytest.mark.parametrize(("longest", "candidates"), [(0.5, 7), (1.0, 2), (2.0, 1), (2.0, 7)])
def test_speller_and_ctc_together_equal_the_slow_search(beams, kind, longest, candidates):
    torch.manual_seed(beams)
    attention = CONFIGS[kind](kind, 4)
    speller = Speller(SpellerConfig(width=5, embedding=3, layers=2, attention=attention), 6, VOCABULARY)
    speller = speller.double().eval()
    for weight in speller.parameters():
        torch.nn.init.normal_(weight, std=0.6)
    lengths = torch.tensor([4, 1, 3, 2])
    frames = torch.randn(4, 4, 6).double() * valid_frames(lengths, 4).unsqueeze(2)
    ctc = (2 * torch.randn(4, 4, VOCABULARY).double()).log_softmax(-1)
    limits = (lengths * longest).ceil().long()
    config = SearchConfig(beam=beams, length_exponent=0.6, ctc_candidates=candidates)
    memory = speller.remember(frames, valid_frames(lengths, 4))
    parts = [Part("speller", SpellerScorer(speller, memory, (BLANK, UNKNOWN, BOS)), 0.7)]
    refine = [Part("ctc", CtcPrefixScorer(ctc, lengths, BLANK, EOS), 0.3)]
    found = beam_search(parts, limits, config, BOS, EOS, best=3, refine=refine)
    for row, length in enumerate(lengths.tolist()):
        spell, listen = speller_alone(speller, frames[row, :length]), ctc_alone(ctc[row, :length])

        scored = [(spell, 0.7)], [(listen, 0.3)]
        limit = int(limits[row])
        assert_same(found[row], reference_search(scored[0], limit, config, EOS, 3, refine=scored[1]))
        alone = SpellerScorer(speller, memory.select(torch.tensor([row])), (BLANK, UNKNOWN, BOS))
        single = beam_search([Part("speller", alone, 1.0)], limits[row : row + 1], config, BOS, EOS, best=3)[0]
        assert_same(single, reference_search([(spell, 1.0)], limit, config, EOS, 3))


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("kind", ["location", "content"])
def test_all_scorers_together_equal_the_slow_search(beams, kind):
    """Speller with temperature and coverage, CTC, internal language model and hot words, in batches and padded."""
    torch.manual_seed(beams)
    speller = Speller(SpellerConfig(width=5, embedding=3, attention=CONFIGS[kind](kind, 4)), 6, VOCABULARY)
    speller = speller.double().eval()
    for weight in speller.parameters():
        torch.nn.init.normal_(weight, std=0.6)
    lengths, never, phrases = torch.tensor([3, 4, 1]), (BLANK, UNKNOWN, BOS), [(4, 5), (5, 6, 6), (6,)]
    frames = torch.randn(3, 4, 6).double() * valid_frames(lengths, 4).unsqueeze(2)
    ctc = torch.randn(3, 4, VOCABULARY).double().log_softmax(-1)
    config = SearchConfig(beam=beams, ctc_candidates=3, token_reward=0.1, end_threshold=2.0, no_repeat=2)

    def parts(frames: Tensor, lengths: Tensor, ctc: Tensor) -> tuple[list[Part], list[Part]]:
        memory = speller.remember(frames, valid_frames(lengths, frames.shape[1]))
        scorer = SpellerScorer(speller, memory, never, temperature=1.3, coverage=True)
        hot = HotWordScorer(phrases, VOCABULARY, len(lengths), frames.device)
        return [
            Part("speller", scorer, 0.7, Ending("coverage", 0.1)),
            Part("internal", internal_language_model(speller, len(lengths), never), -0.2),
            Part("hot words", hot, 0.8),
        ], [Part("ctc", CtcPrefixScorer(ctc, lengths, BLANK, EOS), 0.3)]

    limits = lengths + 1
    full, refine = parts(frames, lengths, ctc)
    found = beam_search(full, limits, config, BOS, EOS, 3, lengths // 2, refine)
    for row, length in enumerate(lengths.tolist()):
        own = slice(row, row + 1)
        alone, _ = parts(frames[own, :length], lengths[own], ctc[own, :length])

        def from_the_beginning(part: Part, tokens: Tokens) -> tuple[list[float], float]:
            state = part.scorer.start()
            for token in (BOS, *tokens):
                scores, state = part.scorer.step(torch.tensor([[token]]), state)
            return scores[0, 0].tolist(), float(part.scorer.finish(state)) if part.ending else 0.0

        scored = [(lambda tokens, part=part: from_the_beginning(part, tokens)[0], part.weight) for part in alone]
        theirs = reference_search(
            scored, int(limits[row]), config, EOS, 3, length // 2, [(ctc_alone(ctc[row, :length]), 0.3)],
            lambda tokens, part=alone[0]: 0.1 * from_the_beginning(part, tokens)[1],
        )  # fmt: skip
        assert_same(found[row], theirs)
        names = ["speller", "internal", "hot words", "ctc", "coverage"]
        assert all(list(one.scores) == names for one in found[row])
    assert beams == 1 or any(found)


@torch.no_grad()
@pytest.mark.parametrize("frames", [0, 1])
def test_nothing_heard_and_a_single_frame(frames):
    speller = Speller(SpellerConfig(width=5, embedding=3), 6, VOCABULARY).eval()
    lengths = torch.full((2,), frames)
    memory = speller.remember(torch.randn(2, frames, 6), valid_frames(lengths, frames))
    parts = [Part("speller", SpellerScorer(speller, memory, (BLANK, UNKNOWN, BOS)), 0.7)]
    refine = [
        Part("ctc", CtcPrefixScorer(torch.zeros(2, frames, VOCABULARY).log_softmax(-1), lengths, BLANK, EOS), 0.3)
    ]
    found = beam_search(parts, lengths, SearchConfig(beam=50), BOS, EOS, 50, refine=refine)
    assert [len(one) for one in found] == [[1, 1], [4, 4]][frames]
    assert all(len(one.tokens) <= frames and math.isfinite(one.score) for row in found for one in row)
