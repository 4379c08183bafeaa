import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import UserError
from las.evaluate.score import format_counts, score, with_missing
from las.text.alignment import ErrorCounts, align

TEXTS = st.dictionaries(
    st.text(min_size=1, max_size=3), st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1
)


def test_a_set_seen_by_eye():
    result = score(
        references={"b/1": "Yes, yes!", "a.2": "안녕하세요 여러분", "c 3": "…"},
        hypotheses={"c 3": "uh", "a.2": "", "b/1": "yes no"},
        style="basic",
    )
    assert result.counts == ErrorCounts(substitutions=1, deletions=2, insertions=1, reference=4)
    assert result.characters == ErrorCounts(substitutions=2, deletions=9, insertions=2, reference=14)
    assert [utterance.id for utterance in result.utterances] == ["b/1", "a.2", "c 3"]
    assert result.utterances[0].reference == "yes yes"
    assert result.utterances[2].alignment.counts.rate is None
    assert format_counts(result.counts) == "100.00% (S 1 D 2 I 1 / N 4)"


@settings(max_examples=50)
@given(TEXTS, st.sampled_from(["verbatim", "basic"]), st.randoms())
def test_the_set_is_the_sum_of_its_utterances_in_any_order(texts, style, random):
    references = {id: reference for id, (reference, _) in texts.items()}
    hypotheses = [(id, hypothesis) for id, (_, hypothesis) in texts.items()]
    random.shuffle(hypotheses)
    result = score(references, dict(hypotheses), style)
    alone = [score({id: references[id]}, {id: text}, style) for id, text in hypotheses]
    assert result.counts == sum(one.counts for one in alone)
    assert result.characters == sum(one.characters for one in alone)
    assert all(u.alignment == align(u.reference, u.hypothesis) for u in result.utterances)
    same = score(references, references, style)
    assert (same.counts.errors, same.characters.errors) == (0, 0)


def test_characters_are_counted_without_spaces_in_nfc():
    jamo = "\u1102\u1161\u1102\u1173\u11ab 간다"  # 나는, typed as letters
    assert score({"a": jamo}, {"a": "나는간다!"}).characters == ErrorCounts(reference=4)


def test_no_reference_words_is_said():
    assert format_counts(score({"a": ""}, {"a": "uh"}).counts) == "undefined (S 0 D 0 I 1 / N 0)"


def test_missing_ids_are_named():
    references = dict.fromkeys("abcdefghijklm", "")
    message = (
        "12 of 13 references have no hypothesis (b, c, d, e, f, g, h, i, j, k, ...) and 1 of 2 hypotheses have no "
        "reference (x); to be scored, an id must stand on both sides"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        score(references, {"a": "", "x": ""})
    with pytest.raises(UserError, match=r"both sides; 1 differ only in how Unicode writes them \(NFC, NFD\)$"):
        score({"녹음": "", "a": ""}, {unicodedata.normalize("NFD", "녹음"): "", "a": ""})
    with pytest.raises(UserError, match=r"^1 of 13 references have no hypothesis \(m\); to be"):
        score(references, dict.fromkeys("abcdefghijkl", ""))


def test_missing_hypotheses_can_count_as_deleted():
    references = {"a": "one two", "b": "three"}
    hypotheses, missing = with_missing(references, {"b": "three"})
    assert missing == ["a"]
    assert score(references, hypotheses).counts == ErrorCounts(deletions=2, reference=3)
    with pytest.raises(UserError, match=r"1 of 3 hypotheses have no reference \(c\)"):
        score(references, with_missing(references, {"b": "", "c": ""})[0])


def test_no_utterance():
    with pytest.raises(UserError, match="nothing to score: no utterance on either side"):
        score({}, {})


def test_unknown_style():
    with pytest.raises(UserError, match="did you mean 'verbatim'"):
        score({"a": ""}, {"a": ""}, style="verbatin")
