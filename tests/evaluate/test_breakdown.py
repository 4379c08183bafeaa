from __future__ import annotations

import json

import pytest

from las.evaluate.breakdown import facts, format_interval, format_rate, rates, set_record
from las.evaluate.report import SetResult
from las.evaluate.score import score


@pytest.fixture
def record():
    references = {"a": "one two", "b": "three", "c": "four five six", "d": "여섯"}
    hypotheses = {"a": "one too", "b": "three", "c": "five six uh", "d": ""}
    speakers = {"a": "anna", "b": "anna", "c": "진수", "d": "진수"}
    return set_record(score(references, hypotheses), speakers, {"a": 1.0, "b": 2.0, "c": 1.5})


def test_a_record_is_plain_and_says_what_it_counts_over(record):
    assert json.loads(json.dumps(record)) == record
    assert (record["style"], record["utterances"], record["interval_over"]) == ("basic", 4, "2 speakers")
    assert format_rate(record["wer"]) == "57.14% (S 1 D 2 I 1 / N 7)"
    assert format_interval(record["wer"]) == "33.33-75.00%"  # both draws anna; both draws 진수


def test_speakers_add_up_to_the_set(record):
    anna, other = record["speakers"]
    assert (anna["name"], anna["utterances"], format_rate(anna["wer"])) == ("anna", 2, "33.33% (S 1 D 0 I 0 / N 3)")
    assert (other["name"], format_rate(other["wer"])) == ("진수", "75.00% (S 0 D 2 I 1 / N 4)")
    for rate in ("wer", "cer"):
        for name in ("substitutions", "deletions", "insertions", "reference"):
            assert anna[rate][name] + other[rate][name] == record[rate][name]


def test_without_every_speaker_utterances_are_drawn():
    found = set_record(score({"a": "x", "b": "y"}, {"a": "x", "b": "z"}), {"a": "anna"}, {})
    assert found["interval_over"] == "2 utterances"
    assert [one["name"] for one in found["speakers"]] == ["anna", "(unknown)"]
    assert set_record(score({"a": "x"}, {"a": "x"}), {}, {})["speakers"] == []


def test_confusions(record):
    assert record["confusions"] == {
        "substitutions": [["two", "too", 1]],
        "deletions": [["four", "", 1], ["여섯", "", 1]],
        "insertions": [["", "uh", 1]],
    }
    texts = {str(n): word for n, word in enumerate(["a", "b", "b"])}
    assert set_record(score(texts, dict.fromkeys(texts, "c")), {}, {})["confusions"]["substitutions"] == [
        ["b", "c", 2], ["a", "c", 1],
    ]  # fmt: skip


def test_buckets_hold_every_utterance_whose_value_is_known_once(record):
    words, seconds, rate = record["buckets"].values()
    assert [(one["name"], one["utterances"]) for one in words] == [("1", 2), ("2", 1), ("3", 1)]
    assert [one["name"] for one in seconds] == ["1.00", "1.50", "2.00"]
    assert sum(one["utterances"] for one in rate) == 3
    assert sum(one["wer"]["reference"] for one in words) == 7


def test_quarters_of_many():
    texts = {str(n): "a " * n for n in range(1, 101)}
    words = set_record(score(texts, texts), {}, {})["buckets"]["length, words"]
    assert [(one["name"], one["utterances"]) for one in words] == [
        ("1-25", 25), ("26-50", 25), ("51-75", 25), ("76-100", 25),
    ]  # fmt: skip


def test_aligned_utterances(record):
    assert record["aligned"][2] == {
        "id": "c", "speaker": "진수", "seconds": 1.5, "reference": "four five six", "hypothesis": "five six uh",
        "operations": "D==I", "character_errors": 6, "characters": 11,
    }  # fmt: skip


def test_no_words_at_all():
    found = set_record(score({"a": "", "b": "..."}, {"a": "uh", "b": ""}), {}, {"a": 1.0, "b": 1.0})
    assert format_rate(found["wer"]) == "undefined (S 0 D 0 I 1 / N 0)"
    assert format_interval(found["wer"]) == "undefined"


def test_a_caution_where_speakers_cannot_be_drawn():
    texts = {"a": "one", "b": "two"}
    heard = {"a": "one", "b": "too"}
    for speakers, said in (({}, False), ({"a": "anna"}, True), (dict.fromkeys("ab", "anna"), True)):
        result = SetResult("set", score(texts, heard), texts, heard, {}, None, "h", "", speakers)
        cautions = [value for name, value in facts(result.record) if name == "caution"]
        few = "2 utterances are few: the true interval is wider than the one shown"
        unknown = "not every speaker is known, or there is only one: the interval is over utterances"
        assert cautions == [few, *[unknown] * said]


def test_rates_without_units_have_no_interval():
    assert rates(score({"a": "x"}, {"a": "x"}).utterances)["wer"]["interval"] is None


def test_facts_for_people():
    texts = {"a": "one", "b": "two"}
    speakers = {"a": "anna", "b": "ben"}
    result = SetResult(
        "set", score(texts, texts), texts, texts, {"a": 30.0, "b": 30.0}, 3.0, "digits", "beam 8", speakers
    )
    assert list(facts(result.record)) == [
        ("WER", "0.00% (S 0 D 0 I 0 / N 2), 95% 0.00-0.00% over 2 speakers"),
        ("CER", "0.00% (S 0 D 0 I 0 / N 6), 95% 0.00-0.00% over 2 speakers"),
        ("caution", "2 speakers are few: the true interval is wider than the one shown"),
        ("caution", "where no error was seen, a bootstrap cannot tell how far the true rate is from 0"),
        ("style", "basic, on both sides"),
        ("utterances", "2"),
        ("audio", "1.0 min"),
        ("real-time factor", "0.050 (3.0 s of work)"),
        ("model", "digits"),
        ("decoding", "beam 8"),
    ]
    result = SetResult(
        "set", score(texts, {"a": "", "b": "x"}), texts, {"a": "", "b": "x"}, {}, None, "h.txt", "", {}, ("a",)
    )
    assert list(facts(result.record))[-2:] == [
        ("hypotheses", "h.txt"),
        ("without hypothesis, counted as deleted", "1: a"),
    ]


def test_verdicts_are_counted_with_their_errors():
    scored = score({"a": "one two", "b": "three", "c": "four"}, {"a": "one two", "b": "five", "c": "four"})
    rows = set_record(scored, {}, {}, {"a": "ok", "b": "low", "c": "ok"})["verdicts"]
    assert [(row["name"], row["utterances"], row["wer"]["rate"]) for row in rows] == [("ok", 2, 0.0), ("low", 1, 1.0)]
    assert set_record(scored, {}, {})["verdicts"] == []
