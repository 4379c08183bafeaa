"""Cases whose verdict is known, and thresholds fitted on them."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from las.data.manifest import read_manifest, write_manifest
from las.errors import UserError
from las.recipe import verdict_cases, verdicts
from las.recipe.models import open_model
from las.recipe.nonspeech import KINDS, nonspeech
from las.recipe.verdict_cases import Heard, make_cases
from las.transcribe.verdict import VERDICTS, Evidence, Thresholds, read_thresholds
from las.transcribe.verdict_fit import Case, fit

RATE = 8000
FINE = Evidence(5.0, 1.0, 30.0, (0.1,), (False,), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_no_speech_has_its_length_and_stays_in_bounds(kind):
    for seed in range(4):
        found = nonspeech(kind, 1.5, RATE, np.random.default_rng(seed))
        assert found.shape == (12000,)
        assert found.dtype == np.float32
        assert np.abs(found).max() <= 1.0
        assert (np.abs(found).max() > 0) == (kind != "zeros")
        assert np.array_equal(found, nonspeech(kind, 1.5, RATE, np.random.default_rng(seed)))


def test_on_silence_and_noise_the_transcript_is_empty():
    """With the model that ships: nothing, noise and tones of 1 to 7 s, and a minute of silence."""
    recognizer, _ = open_model("digits", "cpu")
    chance = np.random.default_rng(0)
    sources = [(nonspeech(kind, chance.uniform(1, 7), RATE, chance), RATE) for kind in list(KINDS) * 2]
    sources.append((np.zeros(60 * RATE, np.float32), RATE))
    for one in recognizer.transcribe(sources, words=True, best=2):
        assert (one.text, one.words, one.verdict.name) == ("", (), "silence")


def test_beeps_and_constants_are_put_to_recordings_by_eye():
    wave = torch.cat([0.1 * torch.ones(RATE), -0.1 * torch.ones(RATE)])
    for seed in range(4):
        beeped = verdict_cases._beeped(wave, RATE, np.random.default_rng(seed))
        assert 0.25 * RATE <= len(beeped) - len(wave) <= 1.1 * RATE
        assert torch.equal(beeped[: len(wave)], wave) or torch.equal(beeped[-len(wave) :], wave)
        shifted = verdict_cases._shifted(wave, RATE, np.random.default_rng(seed))
        assert 0.02 <= abs(float(shifted.mean())) <= 0.3
        assert torch.allclose(shifted - shifted.mean(), wave, atol=1e-6)


def few(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """No more than `most` cases of a verdict, and as few recordings to make them of."""
    sizes = {"MOST": most, "MADE": 2 * most, "OVERLONG_INPUTS": most // 2}
    for name, size in sizes.items():
        monkeypatch.setattr(verdict_cases, name, size)


def heard(text: str, written: str) -> Heard:
    return Heard(torch.zeros(8), text, (), written, FINE)


def test_what_makes_a_case_by_eye():
    assert heard("one two", "one six").whole
    assert heard("one two", "one six").wrong == 0.5
    assert not heard("one two", "one").whole
    assert not heard("one", "").whole
    loop = heard("one two", "one two one two one two")
    assert verdict_cases._repeated_insertions(loop) == 4
    assert [one.kind for one in verdict_cases._loops([loop, heard("one", "one one one")], "x")] == ["x"]


def test_words_are_taken_away_where_one_can_tell_which(trained, tools):
    recognizer, _ = open_model(trained / "model", "cpu")
    tokens = {text: recognizer.tokenizer.encode(text) for text in ("a b c", "b b", "a b a")}
    read = [replace(heard(text, text), wave=tools.sing(text), tokens=tuple(own)) for text, own in tokens.items()]
    chance = np.random.default_rng(0)
    ends = verdict_cases._cut(recognizer, read, "end", chance)
    assert {(one.kind, one.verdict) for one in ends} == {("end cut", "truncated")}
    assert 1 <= len(ends) <= 2  # never of "b b"
    [middle] = verdict_cases._cut(recognizer, read[:2], "middle", chance)
    assert (middle.verdict, len(middle.evidence.places)) == ("skipped", 3)  # a, space, c
    assert verdict_cases._words(recognizer, tokens["a b a"])[0] != ()


def test_each_verdict_has_a_tenth_or_less():
    made = {name: [Case("x", name, FINE)] * count for name, count in (("loop", 7), ("low", 0), ("silence", 140))}
    found = list(verdict_cases._portions(made, [Case("x", "ok", FINE)] * 100, np.random.default_rng(0)))
    assert [sum(one.verdict == name for one in found) for name in ("ok", "loop", "low", "silence")] == [100, 7, 0, 20]
    many = list(verdict_cases._portions(made, [Case("x", "ok", FINE)] * 2000, np.random.default_rng(0)))
    most = verdict_cases.MOST
    assert [sum(one.verdict == name for one in many) for name in ("ok", "silence")] == [5 * most, most]


def test_cases_of_a_model_that_knows_three_tones(trained, tools, monkeypatch):
    """It misreads what has noise in it, and loops on what is far too long."""
    few(monkeypatch, 4)
    recognizer, config = open_model(trained / "model", "cpu")
    recordings = [(tools.sing(text, 3), text) for text in tools.texts]
    found = make_cases(recognizer, recordings, config.style, recognizer)
    each = [sum(one.verdict == name for one in found) for name in VERDICTS]
    assert each[0] == 5 * max(each[1:])
    assert min(each) > 0
    assert make_cases(recognizer, [], config.style) == []


def test_long_recordings_are_not_kept(trained):
    recognizer, config = open_model(trained / "model", "cpu")
    seen = []

    def recordings():
        for _ in range(4):
            wave = torch.zeros(round(recognizer.whole * recognizer.rate) + 1)
            seen.append(weakref.ref(wave))
            yield wave, "ab"
            del wave

    held = [0]
    watched = ((held.append(sum(one() is not None for one in seen)), one)[1] for one in recordings())
    assert make_cases(recognizer, watched, config.style) == []
    assert max(held) <= 2


def test_too_few_recordings_are_refused(trained, corpus, tmp_path, monkeypatch):
    few(monkeypatch, 2)
    utterances = read_manifest(corpus / "valid.jsonl")[:3]
    write_manifest(tmp_path / "one.jsonl", utterances)
    cases = verdicts.cases_of(str(trained / "model"), None, tmp_path / "one.jsonl", "cpu", lambda *_: None)
    with pytest.raises(UserError, match=r"no case of .*give more recordings.*--early"):
        fit(cases)
    write_manifest(tmp_path / "silent.jsonl", [replace(one, text="") for one in utterances])
    with pytest.raises(UserError, match=r"too few recordings of words that .* reads in one piece to make cases of"):
        verdicts.cases_of(str(trained / "model"), None, tmp_path / "silent.jsonl", "cpu", lambda *_: None)


def test_an_early_model_reads_at_the_same_rate(trained, corpus, monkeypatch):
    slow = open_model("digits", "cpu")
    slow[0].rate = 4000
    real = verdicts.open_model
    monkeypatch.setattr(verdicts, "open_model", lambda name, *rest: slow if name == "early" else real(name, *rest))
    with pytest.raises(UserError, match="early reads 4000 Hz and digits 8000 Hz; wanted two of one config"):
        verdicts.cases_of("digits", "early", corpus / "valid.jsonl", "cpu", lambda *_: None)


def test_models_pair_with_sets():
    assert verdicts.pairs("m", 2, 0, [], []) == [("m", None), ("m", None)]
    assert verdicts.pairs("m", 2, 1, ["s", "t"], ["u", "v", "w"]) == [("s", "u"), ("t", "v"), ("m", "w")]
    with pytest.raises(UserError, match="3 sets and 2 early models: name one for each set"):
        verdicts.pairs("m", 2, 1, [], ["u", "v"])
    with pytest.raises(UserError, match="2 sets and 3 sisters"):
        verdicts.pairs("m", 2, 1, ["s", "t", "u"], [])


def test_thresholds_go_into_the_model(random_model):
    fitted = Thresholds(repeats=3.0)
    assert verdicts.write(str(random_model), fitted, ["a"], 7) == random_model
    assert read_thresholds(random_model) == open_model(random_model, "cpu")[0].thresholds == fitted
