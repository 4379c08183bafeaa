"""CTC's paths by enumeration and its greedy reading by eye."""

import itertools

import pytest
import torch

from las.model.ctc import BLANK, CtcBranch, ctc_greedy, frames_needed


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    """A path without its repeats, then without its blanks."""
    return tuple(token for token, _ in itertools.groupby(path) if token != BLANK)


def test_frames_needed_is_the_shortest_path_found_by_trying_all():
    shortest: dict[tuple[int, ...], int] = {}
    for frames in range(6):
        for path in itertools.product(range(3), repeat=frames):
            shortest.setdefault(collapsed(path), frames)
    transcripts = [one for one in shortest if len(one) <= 3]
    assert len(transcripts) == 1 + 2 + 4 + 8
    tokens = torch.zeros(len(transcripts), 4, dtype=torch.int64)
    for row, transcript in enumerate(transcripts):
        tokens[row, : len(transcript)] = torch.tensor(transcript)
    lengths = torch.tensor([len(one) for one in transcripts])
    assert frames_needed(tokens, lengths).tolist() == [shortest[one] for one in transcripts]


def test_padding_is_no_repetition():
    tokens = torch.tensor([[5, 5, 5, 5], [5, 0, 0, 0]])
    assert frames_needed(tokens, torch.tensor([2, 1])).tolist() == [3, 1]


def test_empty_transcripts_need_no_frames():
    nothing = torch.zeros(2, dtype=torch.int64)
    assert frames_needed(torch.zeros(2, 3, dtype=torch.int64), nothing).tolist() == [0, 0]
    assert frames_needed(torch.zeros(2, 0, dtype=torch.int64), nothing).tolist() == [0, 0]


def test_fewer_frames_than_needed_have_no_path():
    tokens, lengths = torch.tensor([[3, 3, 4]]).expand(5, 3), torch.full((5,), 3)
    frames = torch.arange(2, 7)
    loss = torch.nn.functional.ctc_loss(
        torch.zeros(6, 5, 5).log_softmax(-1), tokens, frames, lengths, blank=BLANK, reduction="none"
    )
    assert (loss.isfinite() == (frames >= frames_needed(tokens, lengths))).all()


def logits_of(*paths: list[int]) -> torch.Tensor:
    longest = max(len(path) for path in paths)
    padded = torch.tensor([path + [7] * (longest - len(path)) for path in paths])
    return torch.nn.functional.one_hot(padded, 8).float()


def test_greedy_by_eye():
    logits = logits_of([5, 5, 0, 5, 6, 6], [0, 0, 7], [4], [])
    assert ctc_greedy(logits, torch.tensor([6, 3, 1, 0])) == [[5, 5, 6], [7], [4], []]


@pytest.mark.parametrize("path", [[0, 0], [3, 3, 3], [3, 0, 3], [0, 3, 4, 4, 0]])
def test_greedy_is_the_collapsed_best_path(path):
    assert ctc_greedy(logits_of(path), torch.tensor([len(path)])) == [list(collapsed(tuple(path)))]


def test_branch_drops_nothing_outside_of_training():
    branch = CtcBranch(4, 6, dropout=0.5)
    frames = torch.randn(2, 3, 4)
    assert branch(frames).shape == (2, 3, 6)
    assert not torch.equal(branch(frames), branch(frames))
    branch.eval()
    assert torch.equal(branch(frames), branch.output(frames))
