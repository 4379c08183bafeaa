import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.errors import UserError
from las.text import alignment
from las.text.alignment import ErrorCounts, Pair, align
from las.text.normalize import nfc

WORDS = st.lists(st.sampled_from(["one", "two", "three", "셋", "é", "*"]), max_size=8).map(" ".join)
COUNTS = st.builds(ErrorCounts, *[st.integers(0, 99)] * 4)


def edit_distance(left, right):
    """The textbook recurrence (Wagner and Fischer 1974), one row at a time."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


@given(WORDS | st.text(), WORDS | st.text(), st.sampled_from(["word", "character"]))
def test_counts_are_the_edit_distance_and_pairs_spell_both_sides(reference, hypothesis, unit):
    left, right = (nfc(text).split(" ") if nfc(text) else [] for text in (reference, hypothesis))
    if unit == "character":
        left, right = list("".join(left)), list("".join(right))
    found = align(reference, hypothesis, unit)
    counts, operations = found.counts, [pair.operation for pair in found.pairs]

    assert counts.errors == edit_distance(left, right)
    assert counts.reference == len(left)
    assert [pair.reference for pair in found.pairs if pair.operation != "insertion"] == left
    assert [pair.hypothesis for pair in found.pairs if pair.operation != "deletion"] == right
    assert counts.substitutions == operations.count("substitution")
    assert counts.deletions == operations.count("deletion")
    assert counts.insertions == operations.count("insertion")
    assert counts.substitutions + counts.deletions + operations.count("equal") == len(left)
    assert counts.substitutions + counts.insertions + operations.count("equal") == len(right)
    assert all((p.operation == "equal") == (p.reference == p.hypothesis) for p in found.pairs)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        # as kaldialign 0.12 and meeteval 0.4.3 count; other alignments with as few errors have two S for a D and an I
        ("the cat sat down", "a cat down please", (1, 1, 1, 4)),
        ("a b", "b c", (0, 1, 1, 2)),
        ("a b c d", "b x d e", (1, 1, 1, 4)),
        ("a a", "a", (0, 1, 0, 2)),
    ],
)
def test_of_alignments_with_as_few_errors_one_with_more_words_right(reference, hypothesis, counts):
    assert align(reference, hypothesis).counts == ErrorCounts(*counts)


@settings(max_examples=50)
@given(WORDS, WORDS, st.sampled_from(["word", "character"]))
def test_long_texts_have_as_many_errors(reference, hypothesis, unit):
    alone = align(reference, hypothesis, unit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "LARGEST", -1)
        long = align(reference, hypothesis, unit)
    assert (long.counts.errors, long.counts.reference) == (alone.counts.errors, alone.counts.reference)
    for side in (1, 2):
        assert [pair[side] for pair in long.pairs if pair[side]] == [pair[side] for pair in alone.pairs if pair[side]]


@given(WORDS, WORDS)
def test_swapping_sides_keeps_the_number_of_errors(reference, hypothesis):
    assert align(reference, hypothesis).counts.errors == align(hypothesis, reference).counts.errors


@given(st.lists(COUNTS, max_size=5))
def test_counts_add_up(parts):
    whole = sum(parts, ErrorCounts())
    for field in dataclasses.fields(ErrorCounts):
        assert getattr(whole, field.name) == sum(getattr(part, field.name) for part in parts)
    assert whole.errors == sum(part.errors for part in parts)
    assert whole == (sum(parts) or ErrorCounts())


def test_adding_a_number_is_a_mistake():
    with pytest.raises(AssertionError, match="error counts add up with error counts, not with 1"):
        sum([ErrorCounts()], 1)


def test_rate():
    assert ErrorCounts(1, 2, 3, 10).rate == 0.6
    assert ErrorCounts(insertions=3, reference=2).rate == 1.5
    assert ErrorCounts(reference=2).rate == 0.0
    assert ErrorCounts(insertions=3).rate is None
    assert ErrorCounts().rate is None


def test_an_empty_side():
    assert align("a b", "").counts == ErrorCounts(deletions=2, reference=2)
    assert align(" ", "a b").counts == ErrorCounts(insertions=2, reference=0)
    assert align("", " ").counts == ErrorCounts()
    assert align("", "한 a", "character").counts == ErrorCounts(insertions=2)


def test_nothing_but_white_space_is_changed():
    assert align("Don't  stop", "don't stop.").counts == ErrorCounts(substitutions=2, reference=2)
    assert align("한국", "\u1112\u1161\u11ab국").counts.errors == 0  # jamo


def test_characters_leave_spaces_out():
    assert align("나는 간다", "나 는간다", "character").counts == ErrorCounts(reference=4)
    assert align("나는 간다", "나는 갔다", "character").counts == ErrorCounts(substitutions=1, reference=4)


def test_pairs():
    assert align("one two three", "one too").pairs[0] == Pair("equal", "one", "one")
    assert align("two", "").pairs == (Pair("deletion", "two", ""),)
    assert align("", "two").pairs == (Pair("insertion", "", "two"),)


def test_as_a_string_wide_characters_take_two_columns():
    assert str(align("나는 학교에 간다 cafe\u0301 ok", "나도 학교에 café ok so")).split("\n") == [
        "REF:  나는 학교에 간다 café ok **",
        "HYP:  나도 학교에 **** café ok so",
        "EVAL: S           D            I",
    ]
    assert str(align("", "")) == "REF:\nHYP:\nEVAL:"


def test_unknown_unit():
    with pytest.raises(UserError, match="unknown unit 'letter' for error counts; wanted was one of: word, character"):
        align("a", "a", "letter")
