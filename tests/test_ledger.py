"""What was left out, counted and named."""

import json

import pytest

from las.errors import UserError
from las.ledger import Ledger


def filled() -> Ledger:
    ledger = Ledger()
    ledger.leave("no text", "a/1")
    ledger.leave("no text", "둘")
    ledger.leave("too long", "c", "31 s")
    return ledger


def test_counts_by_cause_and_names_the_first():
    assert str(filled()) == "no text: 2 (first: a/1); too long: 1 (first: c: 31 s)"
    assert str(Ledger()) == ""


def test_an_utterance_counts_once_however_often_it_is_met():
    ledger = Ledger()
    assert ledger.leave("no text", "a", "line 1")
    assert not ledger.leave("no text", "a", "line 2")
    assert ledger.leave("too long", "a")
    assert len(ledger) == 1
    assert str(ledger) == "no text: 1 (first: a: line 1); too long: 1 (first: a)"


def test_past_the_stated_share_it_raises():
    filled().check(total=300, limit=0.01, way_out="use a smaller unit")
    with pytest.raises(
        UserError, match=r"^3 of 299 utterances left out, more than 1\.0% \(no text: 2 .*\); use a smaller unit$"
    ):
        filled().check(total=299, limit=0.01, way_out="use a smaller unit")


def test_nothing_left_out_of_nothing_is_fine():
    Ledger().check(total=0, limit=0.0, way_out="")


def test_writes_one_json_line_per_case(tmp_path):
    path = tmp_path / "left_out.jsonl"
    filled().write(path)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"cause": "no text", "id": "a/1", "detail": ""},
        {"cause": "no text", "id": "둘", "detail": ""},
        {"cause": "too long", "id": "c", "detail": "31 s"},
    ]
    assert "둘" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]
