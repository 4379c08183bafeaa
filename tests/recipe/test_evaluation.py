from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from las.data.manifest import Utterance, read_manifest, write_manifest
from las.data.sharding import write_shards
from las.errors import UserError
from las.evaluate.score import score
from las.recipe import evaluation
from las.recipe.evaluation import evaluate_set, illustrate
from las.recipe.models import open_model


def test_shards_and_manifest_give_the_same_result(trained, corpus):
    recognizer, _ = open_model(trained / "model")
    moved = []
    results = [
        evaluate_set(recognizer, "valid", corpus / where, "basic", lambda done, total: moved.append((done, total)))
        for where in ("shards/valid", "valid.jsonl")
    ]
    shards, manifest = results
    assert shards.hypotheses == dict(
        sorted(manifest.hypotheses.items(), key=lambda one: list(shards.hypotheses).index(one[0]))
    )
    assert shards.score.counts == manifest.score.counts
    assert shards.score.counts.rate == 0.0
    assert shards.audio_seconds == pytest.approx(manifest.audio_seconds)
    assert all(math.isclose(done, total) for done, total in moved)
    assert shards.decoding == "beam 2, CTC 0.3, length exponent 0.6, style basic"


def test_speakers_and_lengths_of_a_set(trained, tools, tmp_path):
    recognizer, _ = open_model(trained / "model")
    wave = tools.write_wav(tmp_path / "a.wav", tools.sing("ab"))
    utterances = [Utterance("하나", str(wave), "ab", speaker="진수"), Utterance("둘", str(wave), "ab")]
    write_manifest(tmp_path / "set.jsonl", utterances)
    write_shards(utterances, tmp_path / "shards")
    for path in (tmp_path / "set.jsonl", tmp_path / "shards"):
        result = evaluate_set(recognizer, "set", path, "basic")
        assert result.speakers == {"하나": "진수"}
        assert result.lengths == {"하나": 0.24, "둘": 0.24}


def test_verdicts_and_the_confidence_of_words_go_into_a_result(trained, corpus):
    recognizer, _ = open_model(trained / "model")
    plain = evaluate_set(recognizer, "valid", corpus / "valid.jsonl", "basic")
    assert plain.reliability is None
    assert plain.verdicts == dict.fromkeys(plain.hypotheses, "ok")
    assert '"verdict": "ok"' in plain.lines()
    found = evaluate_set(recognizer, "valid", corpus / "valid.jsonl", "basic", words=True).reliability
    words = sum(len(text.split()) for text in plain.references.values())
    assert found["words"] == words == sum(count for count, *_ in found["bins"])
    assert found["separation"] is None  # all are right
    assert 0 <= found["error"] < 0.5
    assert evaluation._reliability([]) is None


def test_a_report_shows_the_worst_utterances_and_links_to_the_rest(trained, corpus, tmp_path, monkeypatch):
    recognizer, _ = open_model(trained / "model")
    result = evaluate_set(recognizer, "valid", corpus / "valid.jsonl", "basic")
    heard = {**result.hypotheses, "valid-3": "cc cc", "valid-5": "a"}  # 2 errors and 2 errors, of 2 and 3 words
    result = replace(result, hypotheses=heard, score=score(result.references, heard))
    monkeypatch.setattr(evaluation, "REPORT_PICTURES", 2)
    monkeypatch.setattr(evaluation, "REPORT_AUDIO", (corpus / "wav/valid-3.wav").stat().st_size)
    for path in ("valid.jsonl", "shards/valid"):
        media = illustrate(recognizer, result, corpus / path, tmp_path)
        pictured = {id for id, one in media.items() if one.attention is not None}
        assert pictured == {"valid-3", "valid-5"}
        attention = media["valid-3"].attention
        assert attention.pieces == ("c", "c", "▁", "c", "c", "</s>")
        assert attention.weights.shape[0] == 6
        assert attention.weights.sum(1) == pytest.approx(1.0)
        assert media["valid-3"].audio is not None
    media = illustrate(recognizer, result, corpus / "valid.jsonl", tmp_path)
    assert media["valid-3"].audio == (corpus / "wav/valid-3.wav").read_bytes()
    assert media["valid-0"].audio is None
    assert (tmp_path / media["valid-0"].link).resolve() == corpus / "wav/valid-0.wav"


def test_no_picture_where_there_is_no_attention_or_too_much_speech(trained, corpus):
    recognizer, _ = open_model(trained / "model")
    recording = (corpus / "wav/valid-0.wav").read_bytes()
    assert evaluation.attention_of(recognizer, recording, "ab") is not None
    recognizer.search = replace(recognizer.search, whole=0.1, piece=0.1)
    assert evaluation.attention_of(recognizer, recording, "ab") is None
    recognizer.search = replace(recognizer.search, whole=3.0)
    recognizer.model.speller.attention = None
    assert evaluation.attention_of(recognizer, recording, "ab") is None


def test_a_broken_recording_of_a_set_is_named_by_its_id(trained, corpus, tmp_path):
    recognizer, _ = open_model(trained / "model")
    path = tmp_path / "가짜.wav"
    path.write_bytes(b"no audio")
    write_manifest(tmp_path / "set.jsonl", [Utterance("하나", str(path), "a")])
    with pytest.raises(UserError, match=r"가짜.wav: "):
        evaluate_set(recognizer, "set", tmp_path / "set.jsonl", "basic")


def test_a_recording_that_cannot_be_read_costs_its_words_and_no_other(trained, corpus, tmp_path):
    recognizer, _ = open_model(trained / "model")
    good = read_manifest(corpus / "valid.jsonl")
    bad = Utterance("깨진", str(tmp_path / "a.wav"), "ab c", speaker="진수")
    Path(bad.audio).write_bytes(b"no audio")
    write_manifest(tmp_path / "set.jsonl", [good[0], bad, *good[1:]])
    complaints = []
    path = tmp_path / "set.jsonl"
    result = evaluate_set(recognizer, "set", path, "basic", on_error=lambda error: complaints.append(str(error)))
    assert [one.startswith(f"{bad.audio}: not audio") for one in complaints] == [True]
    assert result.missing == ("깨진",)
    assert (result.score.counts.errors, result.score.counts.deletions) == (2, 2)
    assert result.hypotheses == {**{one.id: one.text for one in good}, "깨진": ""}
    assert "깨진" not in illustrate(recognizer, result, path, tmp_path)


def test_the_audio_of_a_set_is_read_as_it_is_needed(trained, corpus, monkeypatch):
    """Not all of it at once: the second recording is not read before the first is handed on."""
    recognizer, _ = open_model(trained / "model")
    read, events = evaluation.read_sample, []
    monkeypatch.setattr(evaluation, "read_sample", lambda *place: events.append("read") or read(*place))
    monkeypatch.setattr(recognizer, "_read_ahead", lambda sources, *_: (events.append("taken") for _ in sources))
    with pytest.raises(TypeError):  # "taken" is no recording
        evaluate_set(recognizer, "valid", corpus / "shards/valid", "basic")
    assert events == ["read", "taken"]
