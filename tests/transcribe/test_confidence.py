"""How sure to be of a word."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import UserError
from las.search.trace import Trace
from las.transcribe.confidence import (
    FILE,
    UNFITTED,
    ConfidenceMap,
    calibration_error,
    fit,
    read_map,
    reliability,
    right_words,
    separation,
    word_features,
    write_map,
)
from las.transcribe.timing import spelled_words


def test_evidence_by_eye():
    words = spelled_words(["▁one", "▁t", "wo"])
    spoken, heard = [math.log(0.8), math.log(0.5), math.log(0.4)], [math.log(0.9), math.log(0.3), math.log(0.7)]
    others = [("one two", math.log(0.6)), ("one", math.log(0.2)), ("two", math.log(0.2))]
    found = word_features(words, Trace(torch.zeros(4, 1), [(0, 0)] * 3, spoken, heard), others)
    assert np.array(found) == pytest.approx(np.array([[0.8, 0.9, 0.8], [0.2, 0.3, 0.8]]))
    deaf = word_features(words, Trace(torch.zeros(4, 1), None, spoken, None), others)
    assert [row[1] for row in deaf] == pytest.approx([0.8, 0.2])  # without CTC the speller speaks for it
    assert word_features([], Trace(torch.zeros(1, 1), None, [], None), [("", -1.0)]) == []


def test_right_words_by_eye():
    assert right_words(["a", "b", "c"], "a c d") == [True, False, True]
    assert right_words(["中", "国"], "中国") == [True, True]
    assert right_words([], "a") == []
    assert right_words(["a"], "") == [False]


def test_without_a_map_confidence_is_the_spellers():
    for probability in (0.001, 0.3, 0.999):
        assert UNFITTED((probability, 0.5, 0.1)) == pytest.approx(probability)
    assert 0 < UNFITTED((0.0, 0.0, 0.0)) < UNFITTED((1.0, 1.0, 1.0)) < 1


def test_a_fit_finds_the_truth():
    chance = np.random.default_rng(0)
    odds = chance.normal(0, 2, (20_000, 3))
    true = ConfidenceMap((0.8, 0.0, 1.5), -0.7)
    evidence = 1 / (1 + np.exp(-odds))
    sure = np.array([true(row) for row in evidence])
    right = (chance.random(len(sure)) < sure).astype(float)
    found = fit(evidence, right)
    assert found.weights == pytest.approx(true.weights, abs=0.06)
    assert found.bias == pytest.approx(true.bias, abs=0.06)
    own = np.array([found(row) for row in evidence])
    assert own.mean() == pytest.approx(right.mean(), abs=1e-3)
    assert calibration_error(own, right) < 0.01


@pytest.mark.parametrize(("right", "kind"), [([1.0, 1.0], "right"), ([0.0, 0.0], "wrong")])
def test_words_of_one_kind_show_nothing(right, kind):
    with pytest.raises(UserError, match=f"all 2 words are {kind}: confidence cannot be fitted"):
        fit(np.full((2, 3), 0.5), np.array(right))


def test_evidence_that_parts_all_words_still_has_a_fit():
    found = fit(np.array([[0.9] * 3, [0.1] * 3] * 5), np.array([1.0, 0.0] * 5))
    assert np.isfinite([*found.weights, found.bias]).all()
    assert found((0.9,) * 3) > 0.9 > 0.1 > found((0.1,) * 3)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans()), min_size=1, max_size=12))
def test_auc_is_that_of_all_pairs(words):
    sure, right = (np.array(column, dtype=float) for column in zip(*words, strict=True))
    pairs = [(a > b) + (a == b) / 2 for a in sure[right > 0] for b in sure[right == 0]]
    found = separation(sure, right)
    assert math.isnan(found) if not pairs else found == pytest.approx(np.mean(pairs))
    rows = reliability(sure, right)
    assert sum(count for count, _, _ in rows) == len(words)
    assert sum(count * share for count, _, share in rows) == pytest.approx(right.sum())


def test_a_map_is_read_as_it_was_written(tmp_path):
    assert read_map(tmp_path) == UNFITTED
    (tmp_path / FILE).write_text('{"doctor": {"loop": 0.5}}')
    assert read_map(tmp_path) == UNFITTED
    write_map(tmp_path, ConfidenceMap((1.5, -0.25, 2.0), 0.125), {"words": 7})
    assert read_map(tmp_path) == ConfidenceMap((1.5, -0.25, 2.0), 0.125)
    record = json.loads((tmp_path / FILE).read_text())
    assert record["doctor"] == {"loop": 0.5}
    assert record["confidence"]["words"] == 7
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "calibration.json: cannot be read"),
        ("[]", "calibration.json: wanted a JSON object"),
        ('{"confidence": {"bias": 1}}', "calibration.json: confidence is no map of `las calibrate`"),
        (
            '{"confidence": {"weights": {"speller": 1, "ctc": 0, "agreement": 0}, "bias": NaN}}',
            "calibration.json: confidence is no map of `las calibrate`",
        ),
        ('{"confidence": 5}', "calibration.json: confidence is no map of `las calibrate`"),
    ],
)
def test_a_damaged_map_is_refused(tmp_path, content, message):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(UserError, match=message):
        read_map(tmp_path)
