import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.errors import UserError
from las.evaluate.score import format_counts, read_texts, score
from las.text.alignment import ErrorCounts, align

TEXTS = st.dictionaries(
    st.text(min_size=1, max_size=3), st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1
)


def written(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_set_seen_by_eye():
    result = score(
        references={"b/1": "Yes, yes!", "a.2": "안녕하세요 여러분", "c 3": "…"},
        hypotheses={"c 3": "uh", "a.2": "", "b/1": "yes no"},
        style="basic",
    )
    assert result.counts == ErrorCounts(substitutions=1, deletions=2, insertions=1, reference=4)
    assert [utterance.id for utterance in result.utterances] == ["b/1", "a.2", "c 3"]
    assert result.utterances[0].reference == "yes yes"
    assert result.utterances[2].alignment.counts.rate is None
    assert format_counts(result.counts) == "100.00% (S 1 D 2 I 1 / N 4)"


@given(TEXTS, st.sampled_from(["verbatim", "basic"]), st.sampled_from(["word", "character"]), st.randoms())
def test_the_set_is_the_sum_of_its_utterances_in_any_order(texts, style, unit, random):
    references = {id: reference for id, (reference, _) in texts.items()}
    hypotheses = [(id, hypothesis) for id, (_, hypothesis) in texts.items()]
    random.shuffle(hypotheses)
    result = score(references, dict(hypotheses), style, unit)
    alone = [score({id: references[id]}, {id: text}, style, unit).counts for id, text in hypotheses]
    assert result.counts == sum(alone)
    assert all(u.alignment == align(u.reference, u.hypothesis, unit) for u in result.utterances)
    assert score(references, references, style, unit).counts.errors == 0


def test_character_unit():
    assert score({"a": "나는 간다"}, {"a": "나는간다!"}, "basic", "character").counts == ErrorCounts(reference=4)


def test_no_reference_words_is_said():
    assert format_counts(score({"a": ""}, {"a": "uh"}).counts) == "undefined (S 0 D 0 I 1 / N 0)"


def test_missing_ids_are_named():
    references = dict.fromkeys("abcdef", "")
    message = (
        "5 of 6 references have no hypothesis (b, c, d, ...) and 1 of 2 hypotheses have no reference (x); "
        "to be scored, an id must stand on both sides"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        score(references, {"a": "", "x": ""})
    with pytest.raises(UserError, match=r"^1 of 6 references have no hypothesis \(f\); to be"):
        score(references, dict.fromkeys("abcde", ""))


def test_no_utterance():
    with pytest.raises(UserError, match="nothing to score: no utterance on either side"):
        score({}, {})


def test_unknown_style_and_unit():
    with pytest.raises(UserError, match="did you mean 'verbatim'"):
        score({"a": ""}, {"a": ""}, style="verbatin")
    with pytest.raises(UserError, match="unknown unit 'words'"):
        score({"a": ""}, {"a": ""}, unit="words")


@pytest.mark.parametrize(
    "content",
    [
        "a one two\n발화/1 셋\nc\n",
        "a\tone two\n발화/1\t셋\nc\t",
        "\ufeffa  one two \r\n\r\n발화/1\t셋\r\nc \r\n",
        '{"id": "a", "text": "one two"}\n\n{"text": " 셋", "seconds": 1.5, "id": "발화/1"}\n{"id":"c","text":""}',
    ],
)
def test_reading_texts(content, tmp_path):
    assert read_texts(written(tmp_path / "text", content)) == {"a": "one two", "발화/1": "셋", "c": ""}


def test_ids_with_spaces_and_texts_with_strange_line_ends(tmp_path):
    assert read_texts(written(tmp_path / "text", "my file 1\tone\u2028two\x0bthree\n")) == {
        "my file 1": "one\u2028two\x0bthree"
    }
    assert read_texts(written(tmp_path / "none", "\n \n")) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a one\nb caf\xe9\n", "text, line 2: byte 6 is not UTF-8 (0xe9); convert the file to UTF-8"),
        ("a one\n\na two\n", "text, line 3: id 'a' stands here a second time"),
        ('{"id": "a", "text": ""}\n{"id": "a", "text": ""}', "text, line 2: id 'a' stands here a second time"),
        ("a one\n two three\n", "text, line 2: begins with white space; wanted was an id"),
        ("\tone\n", "text, line 1: begins with white space; wanted was an id"),
        ('{"id": "a", "text": ""}\nb two', "text, line 2: not JSON (Expecting value at column 1), but the file begins"),
        ('{"id": "a"}', "text, line 1: no string 'text'; wanted was {"),
        ('{"id": 7, "text": "x"}', "text, line 1: no string 'id'; wanted was {"),
        ('{"id": "a", "text": "x"}\n[1]', "text, line 2: no string 'id'; wanted was {"),
        ('{"id": " ", "text": "x"}', "text, line 1: the id is empty"),
    ],
)
def test_bad_lines_are_named(content, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        read_texts(written(tmp_path / "text", content))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="none: cannot read the texts: No such file"):
        read_texts(tmp_path / "none")
