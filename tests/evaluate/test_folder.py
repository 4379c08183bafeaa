from __future__ import annotations

import json
import sys

import pytest

from las.evaluate.folder import write_folder
from las.evaluate.media import Media
from las.evaluate.report import SetResult
from las.evaluate.score import score


@pytest.fixture
def results(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["las", "score", "r", "h"])

    def one(name, references, hypotheses, missing=()):
        scored = score(references, hypotheses)
        speakers = {"a": "anna", "b": "진수"}
        return SetResult(name, scored, references, hypotheses, {}, None, "h", "", speakers, missing)

    return [
        one("시험", {"a": "the cat sat down today", "b": "셋"}, {"a": "a cat down today please", "b": "셋"}),
        one("second", {"a": "", "b": "x"}, {"a": "", "b": ""}, ("b",)),
    ]


def test_what_lies_in_the_folder(results, tmp_path):
    write_folder(tmp_path, results, {"시험": {"a": Media(b"fLaC")}})
    names = ["report.html", "report.json", "report.txt", "second.jsonl", "시험.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (record["format"], record["command"]) == (1, "las score r h")
    assert [one["name"] for one in record["sets"]] == ["시험", "second"]
    assert record["sets"][1]["missing"] == ["b"]
    assert record["interval"] == {"level": 0.95, "draws": 10000, "method": "bootstrap, percentiles"}
    assert '"audio":"data:audio/flac;base64,ZkxhQw=="' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_text_of_a_report(results, tmp_path):
    write_folder(tmp_path, results, {})
    text = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert text.startswith("command: las score r h\ncommit: ")
    assert "characters of CER: code points of the NFC text without its spaces; a Hangul syllable is one\n" in text
    assert (
        """
WER: 50.00% (S 1 D 1 I 1 / N 6), 95% 0.00-60.00% over 2 speakers
"""
        in text
    )
    assert (
        """
-- by speaker
anna	1 utterance	WER 60.00% (S 1 D 1 I 1 / N 5)	CER """
        in text
    )
    assert "\n-- substitutions, most frequent first\n1\tthe -> a\n" in text
    assert "\n-- deletions, most frequent first\n1\tsat\n" in text
    assert (
        """
id: a
speaker: anna
Scores: (#C #S #D #I) 3 1 1 1
REF:  the cat sat down today ******
HYP:  a   cat *** down today please
EVAL: S       D              I

id: b
speaker: 진수
Scores: (#C #S #D #I) 1 0 0 0
"""
        in text
    )
    assert "\n== second\n\nWER: 100.00% (S 0 D 1 I 0 / N 1), " in text
    assert "\nwithout hypothesis, counted as deleted: 1: b\n" in text
