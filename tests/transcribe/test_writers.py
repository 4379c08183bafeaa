"""Each format against a file written by hand."""

import json

import pytest

from las.errors import UserError
from las.transcribe.recognizer import Segment, Transcript
from las.transcribe.timing import Word
from las.transcribe.verdict import Verdict
from las.transcribe.writers import TIMED, WRITERS, Layout, cues

WORDS = (
    Word("three", 0.5, 0.9004, 0.971),
    Word("<four>", 0.95, 1.2, 0.5),
    Word("&", 1.25, 1.25, 0.004),
    Word("five", 3661.0, 3661.4996, 1.0),
)
TALK = Transcript(
    "my talks/the talk.one.wav",
    3662.0,
    (
        Segment("three <four> &", 0.0, 30.0, -1.25, True, WORDS[:3], (("three <four> &", -1.25), ("three", -2.0))),
        Segment("", 30.0, 60.0, -0.5, True),
        Segment("five", 60.0, 3662.0, -0.25, False, WORDS[3:], verdict=Verdict("truncated", 3661.5, "more")),
    ),
)
NOTHING = Transcript("nothing.wav", 0.5, (Segment("", 0.0, 0.5, -0.1, True),))

EXPECTED = {
    "txt": "three <four> & five\n",
    "srt": """1
00:00:00,500 --> 00:00:01,250
three <four>
&

2
01:01:01,000 --> 01:01:01,500
five

""",
    "vtt": """WEBVTT

00:00:00.500 --> 00:00:01.250
three &lt;four&gt;
&amp;

01:01:01.000 --> 01:01:01.500
five
""",
    "tsv": "start\tend\ttext\n500\t1250\tthree <four> &\n3661000\t3661500\tfive\n",
    "ctm": """the_talk.one 1 0.500 0.400 three 0.9710
the_talk.one 1 0.950 0.250 <four> 0.5000
the_talk.one 1 1.250 0.000 & 0.0040
the_talk.one 1 3661.000 0.500 five 1.0000
""",
}
VTT_WORDS = """WEBVTT

00:00:00.500 --> 00:00:01.250
<c.confidence-97>three</c> <00:00:00.950><c.confidence-50>&lt;four&gt;</c>
<00:00:01.250><c.confidence-0>&amp;</c>

01:01:01.000 --> 01:01:01.500
<c.confidence-100>five</c>
"""
EMPTY = {"txt": "\n", "srt": "", "vtt": "WEBVTT\n", "tsv": "start\tend\ttext\n", "ctm": ""}
NARROW = Layout(line_width=12)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_as_written_by_hand(name):
    assert WRITERS[name](TALK, NARROW) == EXPECTED[name]
    assert WRITERS[name](NOTHING, NARROW) == EMPTY[name]


def test_json():
    plain = {
        "file": "my talks/the talk.one.wav",
        "text": "three <four> & five",
        "seconds": 3662.0,
        "score": -2.0,
        "complete": False,
        "verdict": "truncated",
        "complaints": ["truncated at 3661.5 s: more"],
        "segments": [
            {
                "start": 0.0,
                "end": 30.0,
                "text": "three <four> &",
                "score": -1.25,
                "complete": True,
                "verdict": "ok",
                "alternatives": [{"text": "three <four> &", "score": -1.25}, {"text": "three", "score": -2.0}],
            },
            {"start": 30.0, "end": 60.0, "text": "", "score": -0.5, "complete": True, "verdict": "ok"},
            {"start": 60.0, "end": 3662.0, "text": "five", "score": -0.25, "complete": False, "verdict": "truncated"},
        ],
    }
    assert json.loads(WRITERS["json"](TALK, NARROW)) == plain
    worded = json.loads(WRITERS["json"](TALK, Layout(words=True)))
    assert worded["segments"][2]["words"] == [{"word": "five", "start": 3661.0, "end": 3661.5, "confidence": 1.0}]
    assert worded["segments"][1]["words"] == []
    for transcript in (TALK, NOTHING):
        assert WRITERS["json"](transcript, NARROW).count("\n") == 1


def test_vtt_with_words():
    assert WRITERS["vtt"](TALK, Layout(line_width=12, words=True)) == VTT_WORDS


def of(*texts: str, spaced: bool = True) -> list[Word]:
    return [Word(text, place / 10, place / 10 + 0.1, 0.5, spaced) for place, text in enumerate(texts)]


def shown(words, width, count=2):
    return [
        ["".join(" " * (word.spaced and n > 0) + word.text for n, word in enumerate(line)) for line in cue.lines]
        for cue in cues(words, Layout(width, count))
    ]


def test_lines_and_cues():
    assert shown(of("a", "b", "c", "d", "e"), 3) == [["a b", "c d"], ["e"]]
    assert shown(of("a", "b", "c"), 1, count=1) == [["a"], ["b"], ["c"]]
    assert shown(of("a", "b", "c"), 100) == [["a b c"]]
    assert shown([], 10) == []
    assert shown(of("a", "antidisestablishmentarianism", "b"), 10) == [["a", "antidisestablishmentarianism"], ["b"]]
    assert shown(of("한국어", "됩니다"), 12) == [["한국어", "됩니다"]]  # each sign takes two columns
    assert shown(of("한국어", "됩니다"), 13) == [["한국어 됩니다"]]
    assert shown(of("今", "日", "は", "晴", spaced=False), 4) == [["今日", "は晴"]]
    assert shown(of("שלום", "עולם"), 20) == [["שלום עולם"]]  # in the order of reading; players turn it


def test_a_long_pause_ends_a_cue():
    assert shown([Word("a", 0, 1, 0.5), Word("b", 1.99, 2.5, 0.5), Word("c", 3.5, 4, 0.5)], 42) == [["a b"], ["c"]]


def test_no_cue_ends_when_it_starts():
    [cue] = cues([Word("a", 1.0, 1.0, 0.5)], Layout())
    assert cue.end > cue.start == 1.0


def test_scripts_in_every_format():
    words = (Word("한국어도", 0.1, 0.4, 0.9), Word("שלום", 0.5, 0.8, 0.9))
    transcript = Transcript("소리 파일.wav", 1.0, (Segment("한국어도 שלום", 0.0, 1.0, -1.0, True, words),))
    for name, write in WRITERS.items():
        written = write(transcript, Layout())
        assert "한국어도" in written, name
        assert "שלום" in written, name
    assert WRITERS["ctm"](transcript, Layout()).startswith("소리_파일 1 0.100 0.300 한국어도")
    assert set(TIMED) < set(WRITERS)


@pytest.mark.parametrize("name", ["line_width", "line_count"])
def test_bad_layouts_are_refused(name):
    with pytest.raises(UserError, match=f"{name} 0 must be at least 1"):
        Layout(**{name: 0})
