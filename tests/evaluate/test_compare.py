from __future__ import annotations

import json
import re

import pytest

from las.errors import UserError
from las.evaluate.compare import compare, compare_files, comparison_record, text_lines
from las.evaluate.score import score

REFERENCES = {f"u{number}": "a b c d" for number in range(40)}
SPEAKERS = {id: f"화자 {number % 12}" for number, id in enumerate(REFERENCES)}
WRONG = dict.fromkeys(REFERENCES, "a b c x")


def systems(*hypotheses, speakers=None):
    names = [f"sys {number}" for number in range(len(hypotheses))]
    scores = {name: score(REFERENCES, one) for name, one in zip(names, hypotheses, strict=True)}
    return compare(scores, SPEAKERS if speakers is None else speakers)


def some_wrong(*numbers):
    return {**REFERENCES, **{f"u{number}": WRONG["u0"] for number in numbers}}


def test_a_better_system():
    text = list(text_lines(systems(some_wrong(*range(0, 40, 2)), some_wrong(1, 3)), most=1))
    assert text[0].startswith("A\tsys 0\tWER 12.50% (S 20 D 0 I 0 / N 160)\t95% ")
    assert text[2] == "style basic, on both sides; bootstrap: 10000 draws over 12 speakers"
    assert re.fullmatch(r"B - A: -11\.25 points, 95% -[\d.]+ to -[\d.]+", text[4])
    assert re.fullmatch(
        r"paired bootstrap: B makes fewer errors in 9\d\.\d% of the draws, ties halved, p = 0\.\d+", text[5]
    )
    assert re.fullmatch(
        r"matched pairs \(MAPSSWE\): 22 segments with errors, z = -6.\d+, p < 0.0001; fewer .*", text[6]
    )
    assert text[7] == "sys 1 is better than sys 0: both tests say so (p < 0.05)."
    assert text[8] == "22 of 40 utterances changed: 20 better, 2 worse, 0 as many errors"
    assert text[-1] == "... and 21 more; all of them with --output-dir"
    assert text[10:14] == [
        "id: u0",
        "A (#C #S #D #I) 3 1 0 0",
        "REF:  a b c d\nHYP:  a b c x\nEVAL:       S",
        "B (#C #S #D #I) 4 0 0 0",
    ]


def test_a_worse_system_and_none():
    found = comparison_record(systems(some_wrong(1), WRONG, some_wrong(1), some_wrong(2)))
    assert [one["verdict"] for one in found["comparisons"]] == [
        "sys 1 is worse than sys 0: both tests say so (p < 0.05).",
        "No difference shown. That does not show that there is none: a larger test set may.",
        "No difference shown. That does not show that there is none: a larger test set may.",
    ]
    assert found["comparisons"][0]["bootstrap"]["p_adjusted"] == 3 * found["comparisons"][0]["bootstrap"]["p"]
    assert found["comparisons"][1]["changed"] == []
    assert {one["id"]: (one["errors_a"], one["errors_b"]) for one in found["comparisons"][2]["changed"]} == {
        "u1": (1, 0), "u2": (0, 1),
    }  # fmt: skip
    assert json.loads(json.dumps(found)) == found


def test_several_comparisons_say_so():
    text = "\n".join(text_lines(systems(REFERENCES, WRONG, WRONG)))
    assert text.count("p of 2 comparisons, adjusted by Holm's method") == 2
    assert "\nC - A: +25.00 points, 95% +25.00 to +25.00\n" in text
    assert "40 segments with errors, z = 6.32, p < 0.0001\n" in text


def test_a_difference_that_one_test_alone_sees():
    """One speaker of twelve is heard worse: to the matched pairs, which know no speakers, 40 segments are 40."""
    speakers = {id: str(max(0, int(id[1:]) - 28)) for id in REFERENCES}
    text = "\n".join(text_lines(systems(REFERENCES, some_wrong(*range(12)), speakers=speakers)))
    assert "No difference shown: the matched-pairs test alone finds one (p < 0.05), the other does not." in text


def test_few_units_are_said():
    text = "\n".join(text_lines(systems(REFERENCES, WRONG, speakers={id: id[-1] for id in REFERENCES} | {"u0": "x"})))
    assert "caution" not in text
    text = "\n".join(text_lines(systems(REFERENCES, WRONG, speakers={id: str(int(id[1:]) % 2) for id in REFERENCES})))
    assert "caution: 2 speakers are few" in text


def test_references_without_words():
    empty = score({"a": ""}, {"a": "uh"})
    text = "\n".join(text_lines(compare({"x": empty, "y": score({"a": ""}, {"a": ""})}, {})))
    assert "B - A: undefined, the references have no words" in text
    noises = dict.fromkeys(REFERENCES, "")
    loud, quiet = score(noises, dict.fromkeys(noises, "uh huh")), score(noises, {**noises, "u0": "uh"})
    assert "y is better than x: both tests say so" in "\n".join(text_lines(compare({"x": loud, "y": quiet}, {})))


def test_what_cannot_be_compared():
    one = score({"a": "x", "b": "y"}, {"a": "x", "b": "y"})
    with pytest.raises(UserError, match="nothing to compare: give the hypotheses of two systems or more"):
        compare({"A": one}, {})
    with pytest.raises(UserError, match=r"A and B are not of the same utterances \(b, c stand in one only\)"):
        compare({"A": one, "B": score({"a": "x", "c": ""}, {"a": "x", "c": ""})}, {})
    with pytest.raises(UserError, match=r"A and B were scored against different references \(b\); name .* --reference"):
        compare({"A": one, "B": score({"a": "x", "b": "z"}, {"a": "x", "b": "y"})}, {})


def test_files(tmp_path):
    for name, heard in (("a", "one two"), ("b", "one")):
        record = {"id": "u", "text": heard, "reference": "one two", "speaker": "anna"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    a, b, bare = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.txt"))
    found = compare_files([a, b], None, "basic", False)
    assert (found.names, found.comparisons[0].bootstrap.difference) == ((str(a), str(b)), 0.5)
    bare.write_text("u one two\n")
    with pytest.raises(UserError, match=r"c.txt: holds no references; name them with --reference"):
        compare_files([a, bare], None, "basic", False)
    with pytest.raises(UserError, match="--allow-missing needs the utterances there are; name them with --reference"):
        compare_files([a, b], None, "basic", True)
    with pytest.raises(UserError, match="nothing to compare: a file is named twice"):
        compare_files([a, a], None, "basic", False)
    (tmp_path / "r.trn").write_text("one two (u)\nthree (v)\n")
    with pytest.raises(UserError, match=r"1 of 2 references have no hypothesis \(v\)"):
        compare_files([a, bare], tmp_path / "r.trn", "basic", False)
    found = compare_files([a, bare], tmp_path / "r.trn", "basic", True)
    assert found.scores[0].counts.deletions == 1
