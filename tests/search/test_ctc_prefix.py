"""CTC prefix probabilities against the sum over all alignments, by enumeration."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from las.search.ctc_prefix import CtcPrefixScorer, CtcState

BLANK, END, A, B = 0, 1, 2, 3
VOCABULARY = 4
Tokens = tuple[int, ...]


class Enumerated:
    """All alignments of one utterance (S, V), and what transcripts they are of."""

    def __init__(self, log_probabilities: Tensor):
        table = log_probabilities.tolist()
        self.transcripts: dict[Tokens, list[float]] = {}
        for path in itertools.product(range(len(table[0])), repeat=len(table)):
            tokens = tuple(token for token, _ in itertools.groupby(path) if token != BLANK)
            probability = math.exp(sum(row[token] for row, token in zip(table, path, strict=True)))
            self.transcripts.setdefault(tokens, []).append(probability)

    def whole(self, tokens: Tokens) -> float:
        return math.fsum(self.transcripts.get(tokens, []))

    def begins(self, tokens: Tokens) -> float:
        found = (each for one, each in self.transcripts.items() if one[: len(tokens)] == tokens)
        return math.fsum(itertools.chain.from_iterable(found))


def log_probabilities(lengths: list[int], scale: float = 1.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ones (B, S, V), with the padding full of nonsense."""
    torch.manual_seed(seed)
    frames = (scale * torch.randn(len(lengths), max(lengths), VOCABULARY).double()).log_softmax(-1)
    for row, length in enumerate(lengths):
        frames[row, length:] = 7.0
    return frames, torch.tensor(lengths)


def step(scorer: CtcPrefixScorer, tokens: Tensor, state: CtcState) -> tuple[Tensor, CtcState]:
    """With all tokens as candidates."""
    everything = torch.arange(scorer.vocabulary).expand(*tokens.shape, -1)
    return scorer.step(tokens, everything, state)


def along(scorer: CtcPrefixScorer, tokens: Tokens, batch: int) -> tuple[Tensor, CtcState]:
    """Scores after the same tokens in every utterance (B, 1, V)."""
    scores, state = step(scorer, torch.full((batch, 1), 99), scorer.start())
    for token in tokens:
        scores, state = step(scorer, torch.full((batch, 1), token), state)
    return scores, state


def assert_log(ours: float, probability: float) -> None:
    if probability == 0:
        assert ours == -math.inf
    else:
        assert ours == pytest.approx(math.log(probability), abs=1e-9)


TRANSCRIPTS = [one for length in range(4) for one in itertools.product((A, B), repeat=length)]


@pytest.mark.parametrize("lengths", [[5, 1, 3, 2, 4], [1], [6]])
@pytest.mark.parametrize("scale", [1.5, 8.0])
def test_prefixes_equal_the_sum_over_all_alignments(lengths, scale):
    frames, counts = log_probabilities(lengths, scale)
    scorer = CtcPrefixScorer(frames, counts, BLANK, END)
    references = [Enumerated(frames[row, :length]) for row, length in enumerate(lengths)]
    for tokens in TRANSCRIPTS:
        scores, state = along(scorer, tokens, len(lengths))
        for row, reference in enumerate(references):
            assert_log(float(state.prefix[row, 0]), reference.begins(tokens))
            for token in (A, B):
                assert_log(float(state.longer[row, 0, token]), reference.begins((*tokens, token)))
            assert_log(float(state.longer[row, 0, END]), reference.whole(tokens))
            assert state.longer[row, 0, BLANK] == -math.inf
            if reference.begins(tokens) > 0:
                ratio = reference.begins((*tokens, A)) / reference.begins(tokens)
                assert_log(float(scores[row, 0, A]), ratio)


def test_one_frame_by_eye():
    frames = torch.tensor([[[0.2, 0.1, 0.4, 0.3]]]).log()
    scorer = CtcPrefixScorer(frames, torch.tensor([1]), BLANK, END)
    scores, _ = along(scorer, (), 1)
    assert scores[0, 0].exp().tolist() == pytest.approx([0.0, 0.2, 0.4, 0.3])  # the end: nothing but blank
    scores, _ = along(scorer, (A,), 1)
    assert scores[0, 0].exp().tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0])


def test_a_repeated_token_needs_a_blank_between():
    sure = torch.full((1, 3, VOCABULARY), -30.0).double()
    for place, token in enumerate((A, BLANK, A)):
        sure[0, place, token] = 0.0
    scorer = CtcPrefixScorer(sure, torch.tensor([3]), BLANK, END)
    for tokens, expected in [((A,), -30.0), ((A, A), 0.0), ((A, B), -30.0), ((B, A, B), -90.0)]:
        _, state = along(scorer, tokens, 1)
        assert float(state.longer[0, 0, END]) == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize("tokens", TRANSCRIPTS)
def test_extensions_and_the_end_sum_to_the_prefix(tokens):
    """Where CTC never says the end, as it never should."""
    lengths = [5, 2, 1]
    frames, counts = log_probabilities(lengths)
    frames[:, :, END] = -math.inf
    frames = frames.log_softmax(-1)
    scores, state = along(CtcPrefixScorer(frames, counts, BLANK, END), tokens, 3)
    possible = state.prefix > -math.inf
    assert possible[0].all()
    total = scores.exp().sum(2)
    torch.testing.assert_close(total[possible], torch.ones_like(total)[possible], rtol=0, atol=1e-9)


def test_beams_keep_their_own_pasts_when_reordered():
    lengths = [5, 3, 4]
    frames, counts = log_probabilities(lengths)
    scorer = CtcPrefixScorer(frames, counts, BLANK, END)
    _, state = step(scorer, torch.full((3, 1), 99), scorer.start())
    pasts: list[list[Tokens]] = [[()], [()], [()]]
    numbers = [0, 1, 2]
    moves = [  # utterances kept, parents of their beams, tokens of the new beams
        ([0, 1, 2], [[0, 0], [0, 0], [0, 0]], [[A, B], [B, A], [B, B]]),
        ([0, 2], [[1, 0, 0], [0, 0, 1]], [[A, A, B], [B, A, B]]),
        ([1], [[2, 2, 0]], [[A, B, A]]),
    ]
    for kept, parents, tokens in moves:
        state = scorer.select(state, torch.tensor(kept), torch.tensor(parents))
        scores, state = step(scorer, torch.tensor(tokens), state)
        numbers = [numbers[row] for row in kept]
        pasts = [
            [(*pasts[row][parent], token) for parent, token in zip(own, new, strict=True)]
            for row, own, new in zip(kept, parents, tokens, strict=True)
        ]
        for row, number in enumerate(numbers):
            reference = Enumerated(frames[number, : lengths[number]])
            for beam, past in enumerate(pasts[row]):
                if (before := reference.begins(past)) > 0:
                    assert_log(float(scores[row, beam, A]), reference.begins((*past, A)) / before)
                    assert_log(float(scores[row, beam, END]), reference.whole(past) / before)


def test_whole_transcripts_equal_the_ctc_loss_in_long_utterances():
    """Hundreds of frames with very small probabilities: the sums over time stay exact."""
    torch.manual_seed(0)
    lengths = [700, 350]
    frames = (6 * torch.randn(2, 700, 20).double()).log_softmax(-1)
    tokens = torch.randint(2, 20, (40,))
    tokens[10:13] = 5
    scorer = CtcPrefixScorer(frames, torch.tensor(lengths), BLANK, END)
    scores, state = along(scorer, tuple(tokens.tolist()), 2)
    loss = torch.nn.functional.ctc_loss(
        frames.transpose(0, 1), tokens.expand(2, 40), torch.tensor(lengths), torch.tensor([40, 40]), reduction="none"
    )
    torch.testing.assert_close(state.longer[:, 0, END], -loss, rtol=0, atol=1e-7)
    assert (scores <= 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_few_candidates_get_what_they_get_among_all(dtype):
    lengths = [5, 3, 4]
    frames, counts = log_probabilities(lengths)
    scorer = CtcPrefixScorer(frames.to(dtype), counts, BLANK, END)
    some, everything = scorer.start(), scorer.start()
    asked = torch.tensor([[[B, END]], [[A, B]], [[B, A]]])
    for tokens in ([99, 99, 99], [B, A, B], [B, B, A]):
        last = torch.tensor(tokens).unsqueeze(1)
        few, some = scorer.step(last, asked, some)
        all_, everything = step(scorer, last, everything)
        torch.testing.assert_close(few, all_.gather(2, asked), rtol=0, atol=1e-12)
    assert few.dtype == torch.float64


def test_an_utterance_without_frames_has_but_the_empty_transcript():
    scorer = CtcPrefixScorer(torch.zeros(2, 0, VOCABULARY), torch.tensor([0, 0]), BLANK, END)
    scores, state = step(scorer, torch.full((2, 1), 99), scorer.start())
    assert scores[:, 0].tolist() == [[-math.inf, 0.0, -math.inf, -math.inf]] * 2
    _, state = step(scorer, torch.full((2, 1), A), state)
    assert (state.longer == -math.inf).all()


def test_small_probabilities_in_single_precision():
    """A token that is unlikely wherever the prefix could have ended is unlikely, not impossible."""
    frames = torch.full((1, 3, VOCABULARY), -200.0)
    frames[..., BLANK] = 0.0
    scorer = CtcPrefixScorer(frames, torch.tensor([3]), BLANK, END)
    scores, _ = along(scorer, (), 1)
    assert float(scores[0, 0, A]) == pytest.approx(-200 + math.log(3), abs=1e-4)


def test_prefixes_get_less_likely_step_by_step():
    frames, counts = log_probabilities([5, 3])
    scorer = CtcPrefixScorer(frames, counts, BLANK, END)
    for tokens in TRANSCRIPTS:
        scores, state = along(scorer, tokens, 2)
        assert (scores[(state.prefix > -math.inf)] <= 1e-12).all()
