from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.evaluate import significance
from las.evaluate.score import score
from las.evaluate.significance import (
    DRAWS,
    MatchedPairs,
    Units,
    holm,
    matched_pairs,
    middle_of,
    paired_bootstrap,
    ratio,
    redrawn,
    segments,
)
from las.text.alignment import align


def figures(utterances=300, speakers=12):
    """Errors, words and speaker of utterances; some speakers are heard far better than others."""
    chance = np.random.RandomState(1)
    who = np.arange(utterances) % speakers
    words = chance.randint(1, 30, utterances)
    return chance.binomial(words, 0.02 + 0.3 * who / speakers), words, [f"화자 {number}" for number in who]


def interval(errors, words, units):
    sums = redrawn(units.summed(np.stack([errors, words], axis=1)))
    return middle_of(ratio(sums[:, 0], sums[:, 1]))


# ---------------------------------------------------------------------------------------------------------- intervals


def test_over_speakers_it_is_what_ten_lines_of_numpy_say():
    errors, words, speakers = figures()
    names = list(dict.fromkeys(speakers))
    mine = [np.array([speaker == name for speaker in speakers]) for name in names]
    wrong, said = (np.array([values[one].sum() for one in mine]) for values in (errors, words))
    chance = np.random.RandomState(0)
    rates = []
    for _ in range(10_000):
        drawn = (chance.random_sample(len(names)) * len(names)).astype(int)
        rates.append(wrong[drawn].sum() / said[drawn].sum())
    assert interval(errors, words, Units.of(speakers)) == tuple(np.quantile(rates, [0.025, 0.975]))


def test_over_utterances_it_is_as_wide_as_theory_says():
    errors, words, _ = figures(1000)
    rate = errors.sum() / words.sum()
    spread = math.sqrt(((errors - rate * words) ** 2).sum()) / words.sum()  # of a ratio, by its linear part
    low, high = interval(errors, words, Units.of([None] * len(errors)))
    assert (low, high) == pytest.approx((rate - 1.96 * spread, rate + 1.96 * spread), abs=0.001)  # a tenth of a point


def test_the_same_on_every_machine_whatever_is_drawn_at_once(monkeypatch):
    errors, words, _ = figures(40)
    units = Units.of([None] * 40)
    assert interval(errors, words, units) == pytest.approx((0.0981951866696, 0.1772581007259), abs=1e-12)
    whole = redrawn(np.stack([errors, words], 1))
    monkeypatch.setattr(significance, "BLOCK", 777)
    assert np.array_equal(whole, redrawn(np.stack([errors, words], 1)))


def test_speakers_of_many_minds_widen_the_interval():
    errors, words, speakers = figures()
    alone, together = (interval(errors, words, Units.of(one)) for one in ([None] * 300, speakers))
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_without_words_there_is_no_rate():
    assert middle_of(ratio(np.array([1, 2]), np.array([0, 0]))) is None
    assert middle_of(ratio(np.array([1, 2]), np.array([0, 4]))) == (
        0.5,
        0.5,
    )  # what was drawn without words is left out


def test_units_count_themselves():
    assert str(Units.of(["a"] * 3 + ["b"])) == "2 speakers"
    assert str(Units.of([None])) == "1 utterance"


# ---------------------------------------------------------------------------------------------------- A against B


def test_the_same_system_twice():
    errors, words, speakers = figures()
    found = paired_bootstrap(np.stack([errors, errors, words], 1), Units.of(speakers))
    assert (found.difference, found.interval, found.better, found.p) == (0.0, (0.0, 0.0), 0.5, 1.0)


def test_a_system_that_is_better_everywhere_and_its_mirror_image():
    errors, words, speakers = figures()
    units = Units.of(speakers)
    better = paired_bootstrap(np.stack([errors + 1, errors, words], 1), units)
    worse = paired_bootstrap(np.stack([errors, errors + 1, words], 1), units)
    assert better.difference == -worse.difference == -len(words) / words.sum()
    assert better.interval == tuple(-end for end in reversed(worse.interval))
    assert (better.better, worse.better) == (1.0, 0.0)
    assert better.p == worse.p == 2 / (DRAWS + 1)


def test_a_difference_on_one_speaker_is_no_difference_between_speakers():
    errors, words, speakers = figures()
    figures_ = np.stack([errors, errors + 5 * np.array([one == "화자 3" for one in speakers]), words], 1)
    assert paired_bootstrap(figures_, Units.of(speakers)).p > 0.5
    assert paired_bootstrap(figures_, Units.of([None] * 300)).p < 0.01


def test_a_paired_test_without_words():
    found = paired_bootstrap(np.array([[1, 0, 0], [0, 0, 0]]), Units.of([None, None]))
    assert (found.difference, found.interval) == (None, None)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("x b c d e f", "a b c d e f", [(1, 0)]),
        ("x b c d e y", "a b c d e f", [(1, 0), (1, 0)]),
        ("a b c d e f", "a b c d e f", []),
        ("x b d e f", "a b c y e f", [(2, 1)]),  # one right word does not part them
        ("a b u c d e f", "a b c d e f v", [(1, 0), (0, 1)]),  # words put in, at the end too
        ("a b c d e f", "", [(0, 6)]),
    ],
)
def test_segments_seen_by_eye(a, b, expected):
    assert segments(align("a b c d e f", a), align("a b c d e f", b)) == expected


TEXT = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


@given(TEXT, TEXT, TEXT)
def test_segments_hold_every_error_once(reference, a, b):
    a, b = align(reference, a), align(reference, b)
    found = segments(a, b)
    assert [sum(side) for side in zip(*found, strict=True)] == [a.counts.errors, b.counts.errors] or not found
    assert all(any(one) for one in found)
    assert segments(b, a) == [one[::-1] for one in found]


def pairs(texts):
    """Scored (reference, A, B) as the tests take them."""
    references = {str(number): one[0] for number, one in enumerate(texts)}
    sides = [score(references, {str(number): one[side] for number, one in enumerate(texts)}) for side in (1, 2)]
    return list(zip(sides[0].utterances, sides[1].utterances, strict=True))


def test_matched_pairs_by_hand():
    # differences B - A: 1, 1, 1, -1: mean 1/2, variance (3 * 1/4 + 9/4) / 3 = 1, z = 1/2 / (1 / 2) = 1
    found = matched_pairs(pairs([("a", "a", "x")] * 3 + [("a", "x", "a"), ("a", "a", "a")]))
    assert (found.segments, found.mean, found.z) == (4, 0.5, pytest.approx(1.0))
    assert found.p == pytest.approx(0.31731, abs=1e-5)  # of a standard normal beyond 1, both sides


def test_matched_pairs_that_tell_nothing():
    assert matched_pairs(pairs([("a", "a", "a")])) == MatchedPairs(0, 0.0, 0.0, 1.0)
    assert matched_pairs(pairs([("a", "x", "x")])) == MatchedPairs(1, 0.0, 0.0, 1.0)


def test_matched_pairs_that_all_differ_alike():
    assert matched_pairs(pairs([("a", "a", "x")])).z == 1.0  # one segment shows nothing
    assert matched_pairs(pairs([("a", "x", "a")] * 16)).z == -4.0


def test_under_no_difference_p_is_below_5_per_cent_in_about_5_per_cent():
    chance = np.random.RandomState(0)
    hits = 0
    for _ in range(100):
        texts = [("a", *(("x" if chance.rand() < 0.3 else "a") for _ in "AB")) for _ in range(60)]
        hits += matched_pairs(pairs(texts)).p < 0.05
    assert 1 <= hits <= 12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_only_makes_larger_and_keeps_the_order(values):
    adjusted = holm(values)
    assert min(adjusted) == min(1.0, len(values) * min(values))
    assert all(1 >= after >= before for before, after in zip(values, adjusted, strict=True))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert all(adjusted[a] <= adjusted[b] for a, b in itertools.pairwise(order))
