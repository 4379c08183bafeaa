"""The map from evidence to confidence, fitted on sets."""

import shutil

import numpy as np
import pytest

from las.data.manifest import Utterance, write_manifest
from las.errors import UserError
from las.recipe import calibration
from las.recipe.models import open_model
from las.transcribe.confidence import FEATURES, ConfidenceMap, read_map


@pytest.fixture
def half_true(corpus, tmp_path, tools):
    """A manifest whose second half is transcribed wrongly, and quieter."""
    utterances = []
    for number, text in enumerate(tools.texts):
        wave = tools.sing(text, 50 + number) * (1.0 if number % 2 else 0.01)
        path = tools.write_wav(tmp_path / f"{number}.wav", wave)
        utterances.append(Utterance(str(number), str(path), text if number % 2 else "zzz", len(wave) / tools.rate))
    write_manifest(tmp_path / "half.jsonl", utterances)
    return tmp_path / "half.jsonl"


def test_a_model_is_calibrated_by_itself_or_a_sister(trained, half_true, tmp_path):
    model = shutil.copytree(trained / "model", tmp_path / "model")
    seen = []
    fitted, [judged] = calibration.calibrate(str(model), {"half": half_true}, [], "cpu", lambda *a: seen.append(a))
    assert 0.2 < judged.right.mean() < 0.8
    assert judged.evidence.shape == (len(judged.right), len(FEATURES))
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    with pytest.raises(UserError, match="beams"):
        calibration.calibrate(str(model), {"half": half_true}, [], "cpu", lambda *a: None, ["search.beams=1"])
    sister = calibration.calibrate("digits", {"half": half_true}, [str(model)], "cpu", lambda *a: None)
    assert sister[0] == fitted
    assert open_model(model, "cpu")[0].confidence.weights == (1.0, 0.0, 0.0)
    assert calibration.write(str(model), fitted, [judged]) == model
    assert open_model(model, "cpu")[0].confidence == read_map(model) == fitted
    [word, *_] = open_model(model, "cpu")[0].transcribe([str(half_true.parent / "1.wav")], words=True)[0].words
    assert word.confidence == fitted(word.evidence)


def test_a_report_by_eye():
    judged = calibration.Judged("set", np.array([[0.95] * 3, [0.95] * 3, [0.15] * 3]), np.array([1.0, 0.0, 0.0]))
    assert judged.report(ConfidenceMap()) == [
        "set: 3 words, 33.3% right, mean confidence 68.3%: ECE 35.0%, AUC 0.750",
        "confidence  words   mean  right",
        "0.1 - 0.2       1  15.0%   0.0%  ",
        "0.9 - 1.0       2  95.0%  50.0%  ##########",
    ]


def test_sisters_pair_with_sets(half_true):
    with pytest.raises(UserError, match="1 sets and 2 sisters: name one sister for each set"):
        calibration.calibrate("digits", {"half": half_true}, ["digits", "digits"], "cpu", lambda *a: None)


def test_a_set_without_words_is_refused(trained, half_true, monkeypatch):
    monkeypatch.setattr(calibration, "_judged_words", lambda *_: iter(()))
    with pytest.raises(UserError, match="recognises no word in it, so there is none to judge"):
        calibration.calibrate(str(trained / "model"), {"half": half_true}, [], "cpu", lambda *a: None)
