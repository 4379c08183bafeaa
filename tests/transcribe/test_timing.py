"""Words out of pieces, and where in a recording they begin and end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.search.trace import Trace
from las.text.tokenizer import Tokenizer, train_model
from las.transcribe.timing import Spelled, spelled_words, units, word_times

RATE = 8000
TEXTS = [
    "one two",
    "한국어도 됩니다",
    "중국말 中国话 good",
    "ภาษาไทย ดี",
    "שלום עולם",
    "e\u0301te\u0301 é",
    "日本、日本 las",
]


def joined(words) -> str:
    return "".join(" " * (word.spaced and place > 0) + word.text for place, word in enumerate(words))


def spans(*frames: tuple[int, int]) -> Trace:
    return Trace(torch.zeros(len(frames) + 1, 0), list(frames), [0.0] * len(frames), None)


def peaks(*frames: int, of: int) -> Trace:
    weights = torch.nn.functional.one_hot(torch.tensor([*frames, 0]), of).float()
    return Trace(weights, None, [0.0] * len(frames), None)


def recording(seconds: float, *loud: tuple[float, float], noise: float = 0.0) -> torch.Tensor:
    wave = noise * torch.randn(round(seconds * RATE), generator=torch.manual_seed(0))
    for start, end in loud:
        length = round((end - start) * RATE)
        wave[round(start * RATE) : round(end * RATE)] += 0.5 * torch.sin(torch.arange(length) * 0.6)
    return wave


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([], []),
        (["▁"], []),
        (["▁one", "▁t", "wo"], [("one", 0.5, 0.5), ("two", 1.5, 2.5)]),
        (["o", "n", "e", "▁", "t", "w", "o"], [("one", 0.5, 2.5), ("two", 4.5, 6.5)]),
        (["▁한국", "어", "도", "▁됩니다"], [("한국어도", 0.5, 2.5), ("됩니다", 3.5, 3.5)]),
        (["▁今日", "は"], [("今", 0.25, 0.25), ("日", 0.75, 0.75), ("は", 1.5, 1.5)]),
        (["▁de", "l中", "国x", "y"], [("del", 0.5, 1.25), ("中", 1.75, 1.75), ("国", 2.25, 2.25), ("xy", 2.75, 3.5)]),
        (["▁ท", "ี", "่"], [("ที่", 0.5, 2.5)]),
        (["▁a", "\u0301"], [("á", 0.5, 1.5)]),
    ],
)
def test_words_of_pieces_by_eye(pieces, words):
    assert [(word.text, word.first, word.last) for word in spelled_words(pieces)] == words


def test_characters_without_spaces_are_not_spaced():
    assert [word.spaced for word in spelled_words(["▁中国", "▁las"])] == [True, False, True]
    assert units("") == []


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(["char", "bpe", "unigram"]), st.lists(st.sampled_from(TEXTS), max_size=4), st.integers(0, 9))
def test_words_join_to_the_tokenizers_text(kind, texts, cut):
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(" ".join(texts))
    ids = ids[cut % (len(ids) + 1) :]  # also from the middle of a word
    words = spelled_words(tokenizer.pieces(ids))
    assert joined(words) == tokenizer.decode(ids)
    places = [place for word in words for place in (word.first, word.last)]
    assert places == sorted(places)


TOKENIZERS = {kind: Tokenizer(train_model(TEXTS * 3, 80, kind)) for kind in ("char", "bpe", "unigram")}


def test_edges_are_where_sound_begins_and_ends():
    words = spelled_words(["▁a", "▁b", "▁c"])
    truth = [0.31, 0.62, 1.0, 1.5, 1.9, 2.45]
    for noise, constant in ((0.0, 0.0), (0.02, 0.0), (0.0, 0.1), (0.02, -0.3)):
        wave = constant + recording(3.0, (0.31, 0.62), (1.0, 1.5), (1.9, 2.45), noise=noise)
        for trace in (spans((5, 5), (13, 14), (26, 26)), peaks(5, 13, 26, of=38)):
            times = np.array(word_times(words, trace, wave, RATE, frame=0.08)).ravel()
            assert np.abs(times - truth).max() <= 0.02


def test_words_without_a_pause_meet_where_it_is_quietest():
    wave = recording(2.0, (0.0, 2.0))
    wave[9600:9760] *= 0.5
    [first, second] = word_times(spelled_words(["▁a", "▁b"]), spans((2, 2), (22, 22)), wave, RATE, frame=0.08)
    assert first[0] == 0.0
    assert first[1] == second[0] == pytest.approx(1.21, abs=0.02)
    assert second[1] == 2.0


def test_a_short_dip_inside_a_word_is_no_pause():
    wave = recording(1.0, (0.1, 0.4), (0.42, 0.9))
    assert word_times([Spelled("a", 0.5, 0.5, True)], spans((2, 2)), wave, RATE, frame=0.08) == [
        pytest.approx((0.1, 0.9), abs=0.011)
    ]


def test_attention_that_looks_back_or_nowhere_still_gives_times_in_order():
    wave = recording(2.0, (0.0, 2.0))
    words = spelled_words(["▁a", "▁b", "▁c"])
    back = np.array(word_times(words, peaks(10, 5, 20, of=25), wave, RATE, frame=0.08)).ravel()
    assert (np.diff(back) >= 0).all()
    nowhere = Trace(torch.zeros(4, 25), None, [0.0] * 3, None)
    even = np.array(word_times(words, nowhere, wave, RATE, frame=0.08)).ravel()
    assert (np.diff(even) >= 0).all()
    assert even[2] == pytest.approx(2 / 3, abs=0.34)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    samples=st.integers(0, 3000),
    rate=st.sampled_from([100, 999, 1000]),
    frames=st.lists(st.integers(0, 60), max_size=6),
    seed=st.integers(0, 5),
    ctc=st.booleans(),
)
def test_times_never_run_backwards_nor_leave_the_recording(samples, rate, frames, seed, ctc):
    wave = torch.randn(samples, generator=torch.manual_seed(seed))
    wave[samples // 3 : samples // 2] = 0.0
    trace = spans(*((frame, frame) for frame in sorted(frames))) if ctc else peaks(*frames, of=61)
    words = spelled_words(["▁w"] * len(frames))
    times = [time for word in word_times(words, trace, wave, rate, frame=0.05) for time in word]
    assert times == sorted(times)
    assert all(0 <= time <= samples / rate for time in times)
    assert len(times) == 2 * len(frames)
