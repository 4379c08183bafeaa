import json
import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las.data.manifest import Utterance, read_manifest, write_manifest
from las.errors import UserError
from las.text.normalize import nfc

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAME = TEXT.filter(str.strip)
PATH = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)


def line(**changes) -> bytes:
    record = {"id": "a", "audio": "a.wav", "text": "one"} | changes
    return json.dumps({name: value for name, value in record.items() if value is not ...}).encode() + b"\n"


@pytest.fixture
def manifest(tmp_path):
    """A function that writes bytes as a manifest, with the recordings a.wav and b.wav beside it."""
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"RIFF")

    def write(data: bytes):
        (tmp_path / "train.jsonl").write_bytes(data)
        return tmp_path / "train.jsonl"

    return write


def test_reads_what_a_person_writes(manifest, tmp_path):
    path = manifest(
        b'\xef\xbb\xbf{"id": "a", "audio": "a.wav", "text": "one"}\r\n\n'
        + '{"id": "둘/2\u2028.b", "audio": "b.wav", "text": " 둘  e\u0301", "seconds": 2, "speaker": null}'.encode()
    )
    assert read_manifest(path) == [
        Utterance("a", str(tmp_path / "a.wav"), "one"),
        Utterance("둘/2\u2028.b", str(tmp_path / "b.wav"), "둘 \u00e9", 2),
    ]


def test_audio_paths_become_absolute_whatever_the_working_directory(manifest, tmp_path, monkeypatch):
    manifest(line())
    monkeypatch.chdir(tmp_path)
    assert read_manifest("train.jsonl")[0].audio == str(tmp_path / "a.wav")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_recording_in_another_form_of_unicode_is_found(manifest, tmp_path, form):
    name = unicodedata.normalize({"NFC": "NFD", "NFD": "NFC"}[form], "녹음.flac")
    (tmp_path / name).touch()
    [one] = read_manifest(manifest(line(audio=unicodedata.normalize(form, "녹음.flac"))))
    assert one.audio == str(tmp_path / name)


@given(rows=st.lists(st.tuples(NAME, PATH, TEXT, st.floats(1e-3, 1e6) | st.none(), TEXT | st.none()), min_size=1))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    by_id = {
        id: Utterance(id, f"{folder}/audio/{audio}", nfc(text), seconds, speaker)
        for id, audio, text, seconds, speaker in rows
        if audio not in (".", "..")
    } or {"a": Utterance("a", f"{folder}/a", "")}
    path = folder / "made" / ".." / "manifest.jsonl"
    write_manifest(folder / "manifest.jsonl", by_id.values())
    (folder / "made").mkdir()
    assert read_manifest(folder / "manifest.jsonl", check_audio=False) == list(by_id.values())
    assert len(read_manifest(path, check_audio=False)) == len(by_id)


def test_a_folder_can_be_moved_with_its_manifest(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "소리.wav").write_bytes(b"RIFF")
    elsewhere = tmp_path / "elsewhere.wav"
    elsewhere.write_bytes(b"RIFF")
    utterances = [Utterance("1", str(tmp_path / "old" / "소리.wav"), ""), Utterance("2", str(elsewhere), "")]
    write_manifest(tmp_path / "old" / "m.jsonl", utterances)
    (tmp_path / "old").rename(tmp_path / "new")
    audio = [utterance.audio for utterance in read_manifest(tmp_path / "new" / "m.jsonl")]
    assert audio == [str(tmp_path / "new" / "소리.wav"), str(elsewhere)]


def test_hangul_is_written_as_hangul_and_absent_fields_not_at_all(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [Utterance("하나", "a.wav", "북한산")])
    assert (tmp_path / "m.jsonl").read_text("utf-8") == '{"id": "하나", "audio": "a.wav", "text": "북한산"}\n'


DEEP = b"[" * 100_000
WRONG = [
    (line() + b'{"id": "\xb0\xa1"}', r"line 2: not UTF-8 \(byte b0\); .*iconv"),
    (line() + b"id: a" + b"x" * 500 + b"\n", r"line 2: not JSON .*: id: ax{55}\.\.\. ; wanted one JSON object"),
    (line()[:-2], r"line 1: not JSON"),
    (DEEP, r"line 1: not JSON"),
    (b'{"id": ' + b"1" * 5000 + b"}", r"line 1: not JSON"),
    (b"\n[1, 2]\n", r"line 2: wanted a JSON object with id, audio, text, found \[1, 2\]"),
    (line(text=...), r"line 1: lacks the field 'text'; wanted id, audio, text, found id, audio"),
    (b"{}", r"line 1: lacks the field 'id'.* found nothing"),
    (line(txt="one"), r"line 1: unknown field \"txt\" \(did you mean 'text'\?\); known are id, audio, text, seconds"),
    (line(audio_filepath=""), r"unknown field \"audio_filepath\" \(did you mean 'audio'\?\)"),
    (line(zzz=1), r"unknown field \"zzz\"; known are"),
    (b'{"id": "a", "id": "b", "audio": "a.wav", "text": ""}', r"line 1: the field \"id\" is there twice"),
    (line(text=3), r"line 1: 'text' is 3; wanted a string: write \"text\": \"3\""),
    (line(id=None), r"'id' is null; wanted a string$"),
    (line(audio=["a.wav"]), r"'audio' is \[\"a.wav\"\]; wanted a string"),
    (line(speaker=19), r"'speaker' is 19; wanted a string: write \"speaker\": \"19\""),
    (line(id=" "), r"line 1: 'id' is empty; wanted a name"),
    (line(audio=""), r"'audio' is empty; wanted the path"),
    (line(audio="a\0b"), r"'audio' \"a\\u0000b\" holds a NUL"),
    (line(text="\ud800"), r"line 1: 'text' \"\\ud800\" holds half a character"),
    (line(seconds=0), r"'seconds' is 0; wanted a number above 0"),
    (line(seconds=-1.5), r"'seconds' is -1.5"),
    (line(seconds=float("nan")), r"'seconds' is NaN"),
    (b'{"id": "a", "audio": "a.wav", "text": "", "seconds": 1e999}', r"'seconds' is Infinity"),
    (line(seconds=True), r"'seconds' is true"),
    (line(seconds="3"), r"'seconds' is \"3\""),
    (line(id="b") + line(id="a") + line(id="a"), r"line 3: the id \"a\" was already used in line 2"),
    (b"", r"no utterance in it; wanted one JSON object a line"),
    (b"\n \n", r"no utterance in it"),
]


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[message for _, message in WRONG])
def test_bad_manifest(manifest, data, message):
    path = manifest(data)
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode("utf-8")


def test_audio_that_points_nowhere_is_counted_and_the_first_named(manifest, tmp_path):
    path = manifest(line(id="ok") + b"".join(line(id=str(n), audio=f"{n}.wav") for n in range(5)))
    with pytest.raises(UserError, match=r"5 of 6 audio paths are not files: \S*/0.wav \(line 2\), .*2.wav .*, \.\.\.;"):
        read_manifest(path)
    assert len(read_manifest(path, check_audio=False)) == 6
    with pytest.raises(UserError, match="1 of 1 audio paths are not files"):
        read_manifest(manifest(line(audio=".")))


def test_missing_manifest(tmp_path):
    with pytest.raises(UserError, match=r"no\.jsonl: cannot read the manifest: No such file"):
        read_manifest(tmp_path / "no.jsonl")


def test_an_utterance_made_in_code_is_checked_too():
    with pytest.raises(UserError, match="'seconds' is 0"):
        Utterance("a", "a.wav", "", seconds=0)


def test_a_write_that_fails_leaves_the_old_manifest_and_nothing_else(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance("a", "a.wav", "old")])
    with pytest.raises(UserError, match='the id "b" is there twice'):
        write_manifest(path, [Utterance("b", "b.wav", "new")] * 2)
    assert read_manifest(path, check_audio=False)[0].text == "old"
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the manifest"):
        write_manifest(tmp_path / "file" / "m.jsonl", [Utterance("a", "a.wav", "")])
