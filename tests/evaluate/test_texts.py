"""Files of every format -> texts; with `las/evaluate/formats.py`, whose parsers are reached through them."""

import re

import pytest

from las.errors import UserError
from las.evaluate.texts import Texts, read_pair, read_texts


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text", "a one two\n발화/1 셋\nc\n"),
        ("text", "a\tone two\n발화/1\t셋\nc\t"),
        ("text", "\ufeffa  one two \r\n\r\n발화/1\t셋\r\nc \r\n"),
        ("text", '{"id": "a", "text": "one two"}\n\n{"text": " 셋", "x": [1], "id": "발화/1"}\n{"id":"c","text":""}'),
        ("t.jsonl", '\n{"id": "a", "text": "one two"}\n{"text": "셋", "id": "발화/1"}\n{"id":"c","text":""}'),
        ("t.csv", "id,text\na,one two\n발화/1,셋\nc,\n"),
        ("t.csv", 'Text;ID\r\n"one two";a\r\n\r\n셋;발화/1\r\n;c\r\n'),
        ("t.tsv", "id\ttext\na\tone two\n발화/1\t셋\nc\t\n"),
        ("t.trn", "one two (a)\n셋 (발화/1)\n(c)\n"),
        ("text", ";; made by hand\none two (a)\n셋 (발화/1)\n (c)\n"),
    ],
)
def test_one_content_in_every_format(written, name, content):
    assert read_texts(written(name, content)) == Texts({"a": "one two", "발화/1": "셋", "c": ""})


def test_ids_with_spaces_and_texts_with_strange_line_ends(written):
    assert read_texts(written("text", "my file 1\tone\u2028two\x0bthree\n")).texts == {
        "my file 1": "one\u2028two\x0bthree"
    }
    assert read_texts(written("none", "\n \n")) == Texts({})
    assert read_texts(written("none.trn", "")) == Texts({})
    assert read_texts(written("laughs", "u1 ha (ha)\nu2 no\n")).texts == {"u1": "ha (ha)", "u2": "no"}  # not trn


def test_cells_of_a_csv_may_hold_separators_quotes_and_lines(written):
    path = written("t.csv", 'id,text\n"a,b","say ""one\ntwo"", please"\nc,d\n')
    assert read_texts(path).texts == {"a,b": 'say "one\ntwo", please', "c": "d"}


def test_speakers_lengths_and_references(written):
    line = '{"id": "a", "text": "one", "speaker": "anna", "seconds": 1.5, "reference": "two"}\n'
    assert read_texts(written("t.jsonl", line)) == Texts({"a": "one"}, {"a": "anna"}, {"a": 1.5}, {"a": "two"})
    bare = '{"id": "a", "text": "one", "speaker": null, "seconds": null}\n'
    assert read_texts(written("t.jsonl", bare)) == Texts({"a": "one"})
    table = "id,speaker,seconds,text\na,anna,1.5,one\nb,,,two\n"
    assert read_texts(written("t.csv", table)) == Texts({"a": "one", "b": "two"}, {"a": "anna"}, {"a": 1.5})
    found = read_texts(written("t.trn", "one (anna-1)\ntwo (ben_x_1)\nthree (alone)\n"))
    assert found.speakers == {"anna-1": "anna", "ben_x_1": "ben"}


STM = """;; comment
show 1 anna 0.0 2.0 <o,f0,female> good morning
show 1 ben 2.00 3.50 hello
show 1 x 3.5 5 IGNORE_TIME_SEGMENT_IN_SCORING
show 1 anna 5 6
other A 화자 0 1 셋
"""


def test_an_stm(written):
    found = read_texts(written("r.stm", STM))
    assert found.texts == {
        "show-1-0.00-2.00": "good morning",
        "show-1-2.00-3.50": "hello",
        "show-1-5.00-6.00": "",
        "other-A-0.00-1.00": "셋",
    }
    assert list(found.speakers.values()) == ["anna", "ben", "anna", "화자"]
    assert list(found.seconds.values()) == [2.0, 1.5, 1.0, 1.0]
    assert [(one.begin, one.end) for one in found.ignored] == [(3.5, 5.0)]


def test_words_of_a_ctm_go_to_the_segment_their_middle_lies_in(written):
    ctm = """;; comment
show 1 1.9 0.3 hello 0.9
show 1 0.5 0.4 morning
show 1 0.1 0.2 good
show 1 4.0 0.1 ignored
show 1 6.5 0.1 late
other A 0.2 0.1 셋
"""
    references, hypotheses = read_pair(written("r.stm", STM), written("h.ctm", ctm))
    assert list(hypotheses.texts) == list(references.texts)
    assert list(hypotheses.texts.values()) == ["good morning", "hello", "late", "셋"]


def test_a_ctm_alone_has_an_utterance_a_file(written):
    path = written("h.ctm", "u2 1 0.5 0.1 b\nu2 1 0 0.1 a\nu1 1 0 0.1 c\n")
    assert read_texts(path).texts == {"u2": "a b", "u1": "c"}
    assert read_pair(written("r.trn", "a b (u2)\n"), path)[1].texts == {"u2": "a b", "u1": "c"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", b"a one\nb caf\xe9\n", "text, line 2: byte 6 is not UTF-8 (0xe9); convert the file to UTF-8"),
        ("text", "a one\n\na two\n", "text, line 3: id 'a' stands here a second time"),
        ("text", '{"id": "a", "text": ""}\n{"id": "a", "text": ""}', "text, line 2: id 'a' stands here a second time"),
        ("text", "a one\n two three\n", "text, line 2: begins with white space; wanted was an id"),
        ("text", "\tone\n", "text, line 1: begins with white space; wanted was an id"),
        (
            "text",
            '{"id": "a", "text": ""}\nb two',
            "text, line 2: not JSON (Expecting value at column 1), but the file",
        ),
        ("t.jsonl", '{"id": ' + "9" * 5000 + "}", "t.jsonl, line 1: not JSON (Exceeds the limit"),
        ("text", '{"id": "a"}', "text, line 1: no string 'text'; wanted was {"),
        ("text", '{"id": 7, "text": "x"}', "text, line 1: no string 'id'; wanted was {"),
        ("text", '{"id": "a", "text": "x"}\n[1]', "text, line 2: no string 'id'; wanted was {"),
        ("text", '{"id": " ", "text": "x"}', "text, line 1: the id is empty"),
        (
            "t.jsonl",
            '{"id": "a", "text": "x", "speaker": 7}',
            "line 1: 'speaker' is 7; wanted a string, or leave it out",
        ),
        ("t.jsonl", '{"id": "a", "text": "", "seconds": "x"}', "line 1: 'seconds' is 'x'; wanted a number of seconds"),
        (
            "t.jsonl",
            '{"id": "a", "text": "", "seconds": true}',
            "line 1: 'seconds' is True; wanted a number of seconds",
        ),
        ("t.jsonl", '{"id": "a", "text": "", "seconds": 0}', "line 1: 'seconds' is 0; wanted a number above 0"),
        ("t.jsonl", '{"id": "a", "text": "", "seconds": 1' + "0" * 400 + "}", "wanted a number of seconds"),
        ("t.jsonl", '{"id": "a", "text": "x \\ud83d"}', "t.jsonl, line 1: 'text' holds half a character"),
        ("t.csv", "", "t.csv, line 1: wanted a head with the columns id and text, found ''"),
        ("t.csv", "file,words\na,b\n", "t.csv, line 1: wanted a head with the columns id and text, found 'file,words'"),
        ("t.csv", 'id,text,"x\n', "t.csv, line 1: not csv (unexpected end of data)"),
        ("t.jsonl", '{"a":' + "[" * 200_000, "t.jsonl, line 1: not JSON (maximum recursion depth"),
        ("t.csv", 'id,text\n"a\nb",c\nd,e,f\n', "t.csv, line 4: 3 cells; the head has 2"),
        ("t.csv", 'id,text\na,b\nc,"d', "t.csv, line 3: not csv (unexpected end of data)"),
        ("t.trn", "one (a)\ntwo\n", "t.trn, line 2: no id in parentheses at the end; wanted was `text (speaker-utt"),
        ("t.trn", "one ( )\n", "t.trn, line 1: no id in parentheses at the end"),
        (
            "t.trn",
            "one { two / too } (a)\n",
            "line 1: alternatives ({ two / too }) cannot be scored; write one of them",
        ),
        ("t.trn", "one (um) (a)\n", "t.trn, line 1: (um) is a word that may be left out, which cannot be scored"),
        ("t.stm", "show 1 a 0 1 one (%hes)\n", "t.stm, line 1: (%hes) is a word that may be left out"),
        ("t.stm", "show 1 anna 0\n", "t.stm, line 1: 4 fields; wanted was `file channel speaker begin end text`"),
        ("t.stm", "show 1 anna 0 x a\n", "t.stm, line 1: the end is 'x'; wanted a number of seconds"),
        ("t.stm", "show 1 anna 2 1 a\n", "t.stm, line 1: the segment ends at 1 s, not after its begin at 2 s"),
        ("t.stm", "s 1 a 0 1 b\ns 1 c 0 1.0 d\n", "t.stm, line 2: id 's-1-0.00-1.00' stands here a second time"),
        ("t.ctm", "show 1 0 1\n", "t.ctm, line 1: 4 fields; wanted was `file channel begin duration word`"),
        ("t.ctm", "show 1 nan 1 a\n", "t.ctm, line 1: the begin is 'nan'; wanted a number of seconds"),
        ("t.ctm", "show 1 0 1 <ALT_BEGIN>\n", "t.ctm, line 1: alternatives (<ALT_BEGIN>) cannot be scored"),
        ("t.ctm", "u 1 0 1 a\nu 2 0 1 b\n", "t.ctm: u has the channels 1 and 2; score it against an stm"),
    ],
)
def test_bad_lines_are_named(written, name, content, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_texts(written(name, content))


def test_words_of_no_recording(written):
    with pytest.raises(UserError, match=r"h.ctm: words of show, channel 2, of which the references hold nothing"):
        read_pair(written("r.stm", STM), written("h.ctm", "show 2 0 1 a\n"))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="none: cannot read the texts: No such file"):
        read_texts(tmp_path / "none")
