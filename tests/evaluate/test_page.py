from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from las.evaluate.folder import report_record
from las.evaluate.media import Attention, Media
from las.evaluate.page import _bins, page
from las.evaluate.report import SetResult
from las.evaluate.score import score

EVIL = "</script><script>document.title='gone'</script>"


class Read(HTMLParser):
    """The scripts of a page, and the text outside them."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.text, self.tags = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append([dict(attributes), ""])

    def handle_data(self, data):
        if self.lasttag == "script" and self.cdata_elem:
            self.scripts[-1][1] += data
        else:
            self.text += data


def result(name, references, hypotheses, lengths=None, speakers=None):
    scored = score(references, hypotheses, "verbatim")
    return SetResult(name, scored, references, hypotheses, lengths or {}, 1.0, "model", "beam", speakers or {})


@pytest.fixture
def evil():
    references = {EVIL: f"<b>one {EVIL}", "q\"uote'": "مرحبا بالعالم", "한글 1": "하나 & 둘"}
    hypotheses = {EVIL: f"<i>one {EVIL}", "q\"uote'": "مرحبا", "한글 1": "하나 & 셋"}
    return result(EVIL, references, hypotheses, dict.fromkeys(references, 1.0), dict.fromkeys(references, EVIL))


def test_nothing_in_a_report_becomes_a_tag_or_a_script(evil):
    text = page(report_record([evil]), {EVIL: {EVIL: Media(b"fLaC", "", Attention((EVIL,), np.ones((1, 2))))}})
    found = Read(text)
    kinds = [attributes.get("type") for attributes, _ in found.scripts]
    assert kinds == ["application/json", "application/json", None]  # the utterances, one's media, the page's own
    assert not {"b", "i"} & {tag for tag, _ in found.tags}
    assert EVIL in found.text  # it is there to be read
    utterances = json.loads(found.scripts[0][1])
    assert [one["id"] for one in utterances] == [EVIL, "q\"uote'", "한글 1"]
    assert utterances[0]["reference"] == f"<b>one {EVIL}"
    assert json.loads(found.scripts[1][1])["attention"]["pieces"] == [EVIL]


def test_the_page_is_alone(evil):
    found = Read(page(report_record([evil]), {}))
    for tag, attributes in found.tags:
        assert not {"src", "href", "onclick"} & attributes.keys(), tag
    (policy,) = [attributes["content"] for _, attributes in found.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_an_utterance_is_lines_of_a_table_only_when_it_is_looked_at():
    texts = {f"u{number}": "one two three" for number in range(2000)}
    text = page(report_record([result("many", texts, texts)]), {})
    assert text.count("<tr") < 20
    assert len(text) < 2000 * 250 + 30_000


def test_tables_hold_a_cell_for_every_column():
    references = {"a": "one", "b": "", "c": "two"}
    text = page(report_record([result("set", references, dict(references), {}, {"a": "x", "b": "y", "c": "x"})]), {})
    for table in re.findall(r"<table.*?</table>", text):
        head, *rows = re.findall(r"<tr>.*?</tr>", table)
        assert {len(re.findall(r"<t[hd]", row)) for row in rows} == {head.count("<th")}


def test_a_set_without_words_or_lengths_has_a_page():
    text = page(report_record([result("set", {"a": ""}, {"a": ""})]), {})
    assert "<strong>undefined</strong>" in text
    assert text.count("<figure>") == 1  # of lengths in words: all 0


def test_bins_of_a_histogram():
    labels, counts = _bins(np.array([0.0, 1.0, 1.0, 7.0]), 1.0)
    assert (labels, counts.tolist()) == (list("01234567"), [1, 2, 0, 0, 0, 0, 0, 1])
    labels, counts = _bins(np.array([2.0, 2.0]), 0.0)
    assert counts.sum() == 2
    labels, counts = _bins(np.arange(12, 23) / 10, 0.0)  # on the borders
    assert (len(labels), counts.tolist()) == (11, [1] * 11)
    for values in (np.linspace(0.3, 35, 99), np.linspace(100, 1e6, 5)):
        labels, counts = _bins(values, 0.0)
        assert counts.sum() == len(values)
        assert len(labels) <= 16
    for span in np.geomspace(0.1, 1e5, 500):  # 15.5 had no width at all
        labels, counts = _bins(np.linspace(0.3, 0.3 + span, 99), 0.0)
        assert counts.sum() == 99
        assert 2 <= len(labels) <= 16 or span < 1


def test_reliability_is_drawn_where_words_have_confidence():
    plain = result("set", {"a": "one two"}, {"a": "one six"})
    assert "promised" not in page(report_record([plain]), {})
    bins = [[0, 0.0, 0.0]] * 9 + [[4, 0.95, 0.75]]
    found = replace(plain, reliability={"words": 4, "error": 0.2, "separation": None, "bins": bins})
    text = page(report_record([found]), {})
    assert "<title>90-100%: 4 words, mean confidence 95.0%, 75.0% right</title>" in text
    assert text.count("promised</figcaption>") == 1
    assert "ECE 20.0%, of 4 words" in text
