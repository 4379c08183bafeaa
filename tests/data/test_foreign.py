"""Small corpora in the layouts of other programs, each read to the same utterances."""

import gzip
import json
import shutil
import unicodedata

import pytest
import soundfile
import torch

from las import audio
from las.data.foreign import adopt, read
from las.data.manifest import read_manifest, write_manifest
from las.errors import UserError
from las.ledger import Ledger

RATE = 8000
TEXTS = {"하나": "첫 번째", "b/two": 'it\'s "two"'}


def ramp(first, seconds):
    """Samples whose values tell where they were: n / 100,000."""
    return (torch.arange(round(seconds * RATE)) + first * RATE) / 100_000


def sound(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, ramp(0, seconds).numpy(), RATE, subtype="PCM_24")
    return path


def taken(source, tmp_path):
    """Id -> (text, speaker, seconds or None, samples) of what comes out, by way of a manifest."""
    utterances = list(adopt(read(source), tmp_path / "out.audio", Ledger()))
    write_manifest(tmp_path / "out.jsonl", utterances)
    return {
        one.id: (one.text, one.speaker, one.seconds, audio.load(one.audio, RATE))
        for one in read_manifest(tmp_path / "out.jsonl")
    }


def test_a_folder_of_recordings_and_texts(tmp_path):
    for name, text in TEXTS.items():
        sound(tmp_path / "corpus" / f"{name}.wav")
        (tmp_path / "corpus" / f"{name}.txt").write_text(f"{text}\n", encoding="utf-8")
        (tmp_path / "corpus" / f"{name}.json").write_text("{}")
    assert {id: text for id, (text, *_) in taken(tmp_path / "corpus", tmp_path).items()} == TEXTS


@pytest.mark.parametrize("name", ["하나.flac", "하나.LAB"])
def test_two_of_one_name_in_a_folder_are_refused(tmp_path, name):
    sound(tmp_path / "하나.wav")
    (tmp_path / "하나.txt").write_text("hana")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"하나\.\w+: 하나\.\w+ has the same name; keep one of the two here"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'file_name,transcription,id\n1.wav,첫 번째,하나\n2.wav,"it\'s ""two""",b/two\n'),
        ("a.tsv", 'client_id\tpath\tsentence\tid\nx\t1.wav\t첫 번째\t하나\n\t2.wav\tit\'s "two"\tb/two\n'),
    ],
)
def test_tables(tmp_path, name, content):
    sound(tmp_path / "clips" / "1.wav")
    sound(tmp_path / "2.wav")
    (tmp_path / name).write_text(content, encoding="utf-8")
    found = taken(tmp_path / name, tmp_path)
    assert {id: text for id, (text, *_) in found.items()} == TEXTS
    assert [speaker for _, speaker, *_ in found.values()] == (["x", None] if name == "a.tsv" else [None, None])


def test_a_table_without_ids_takes_the_paths(tmp_path):
    sound(tmp_path / "one.wav")
    sound(tmp_path / "1.1.wav")
    shutil.copy(tmp_path / "one.wav", tmp_path / "1.2")  # no suffix: what follows the dot is of the name
    (tmp_path / "a.csv").write_text('path,text\none.wav,"eins,\n  zwei "\n1.1.wav,b\n1.2,c\n')
    found = {id: text for id, (text, *_) in taken(tmp_path / "a.csv", tmp_path).items()}
    assert found == {"one": "eins, zwei", "1.1": "b", "1.2": "c"}


def test_a_kaldi_folder_without_and_with_segments(tmp_path):
    kaldi = tmp_path / "kaldi"
    recording = sound(kaldi / "long.wav", 3.0)
    (kaldi / "wav.scp").write_text(f"ada-1 {recording}\n")
    (kaldi / "text").write_text("ada-1 the whole\n")
    (kaldi / "utt2spk").write_text("ada-1 ada\n")
    text, speaker, seconds, samples = taken(kaldi, tmp_path)["ada-1"]
    assert (text, speaker, seconds, len(samples)) == ("the whole", "ada", None, 3 * RATE)
    (kaldi / "segments").write_text("ada-1-a ada-1 0.5 1.25\nada-1-b ada-1 2.0 -1\n")
    (kaldi / "text").write_text("ada-1-a 앞\nada-1-b 뒤\n", encoding="utf-8")
    found = taken(kaldi, tmp_path)
    assert [(text, seconds) for text, _, seconds, _ in found.values()] == [("앞", 0.75), ("뒤", 1.0)]
    for (_, _, seconds, samples), start in zip(found.values(), (0.5, 2.0), strict=True):
        torch.testing.assert_close(samples, ramp(start, seconds), atol=1 / 32768, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_cuts_of_lhotse(tmp_path, packed):
    sound(tmp_path / "long.wav", 3.0)
    recording = {"id": "r", "duration": 3.0, "sources": [{"type": "file", "channels": [0], "source": "long.wav"}]}
    said = [
        {"id": "s1", "start": 0.25, "duration": 0.5, "text": "앞", "speaker": "ada"},
        {"id": "s2", "start": 1.0, "duration": 1.0, "text": "뒤"},
    ]
    cut = {"id": "c", "start": 1.0, "duration": 2.0, "recording": recording, "supervisions": said}
    line = (json.dumps(cut) + "\n").encode()
    path = tmp_path / ("cuts.jsonl.gz" if packed else "cuts.jsonl")
    path.write_bytes(gzip.compress(line) if packed else line)
    found = taken(path, tmp_path)
    assert [(id, text, speaker) for id, (text, speaker, *_) in found.items()] == [
        ("s1", "앞", "ada"),
        ("s2", "뒤", None),
    ]
    torch.testing.assert_close(found["s1"][3], ramp(1.25, 0.5), atol=1 / 32768, rtol=0)


def test_lines_of_nemo(tmp_path):
    sound(tmp_path / "wav" / "long.wav", 3.0)
    lines = [
        {"audio_filepath": "wav/long.wav", "text": "alles", "duration": 3.0},
        {"audio_filepath": "wav/long.wav", "text": "mitten", "duration": 1.0, "offset": 1.5},
    ]
    (tmp_path / "train.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = taken(tmp_path / "train.json", tmp_path)
    assert list(found) == ["wav/long", "wav/long@1.5"]
    assert len(found["wav/long"][3]) == 3 * RATE
    torch.testing.assert_close(found["wav/long@1.5"][3], ramp(1.5, 1.0), atol=1 / 32768, rtol=0)


def test_what_cannot_be_used_is_counted_and_named(tmp_path):
    sound(tmp_path / "1.wav")
    (tmp_path / "3.wav").write_bytes(b"no audio")
    lines = [
        {"audio_filepath": "1.wav", "text": "one", "duration": 1.0},
        {"audio_filepath": "2.wav", "text": "missing", "duration": 1.0},
        {"audio_filepath": "1.wav", "text": "past the end", "duration": 1.0, "offset": 0.5},
        {"audio_filepath": "3.wav", "text": "broken", "duration": 1.0, "offset": 0.5},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger, calls = Ledger(), []
    utterances = list(adopt(read(tmp_path / "a.jsonl"), tmp_path / "audio", ledger, calls.append))
    assert [one.id for one in utterances] == ["1"]
    assert list(ledger.cases["cannot be used"]) == ["2", "1@0.5", "3@0.5"]
    assert ledger.cases["cannot be used"]["1@0.5"].endswith("1.wav: has 1.00 s, wanted 0.50 s to 1.50 s")
    assert calls == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.md": ""}, r"a\.md: wanted a folder of recordings and texts, a Kaldi"),
        ({"a.csv": "id,words\n"}, r"a\.csv: no column for audio among id, words; call it audio or path"),
        ({"a.csv": "path,text\nx.wav,well, yes\n"}, r"line 2: more cells than the head has, or a text with a comma is"),
        ({"a.tsv": "path\ttext\nx.wav\twell\tyes\n"}, r"a\.tsv, line 2: more cells than the head has$"),
        ({"a.csv": "path,text\nx.wav\n"}, r"a\.csv, line 2: fewer cells than the head has"),
        ({"a.csv": 'path,text\nx.wav,"a"b\n'}, r"a\.csv, line 2: "),
        ({"a.csv": "path,text\n"}, r"a\.csv: no utterance in it"),
        ({"a.csv": "path,text\nx.wav,a\nx.mp3,b\n"}, r"a\.csv: the id 'x' is there twice"),
        ({"a.csv": b"path,text\nx.wav,\xff\n"}, r"a\.csv: not UTF-8 .*; save it as UTF-8"),
        ({"a.jsonl": "{]\n"}, r"a\.jsonl, line 1: not JSON"),
        ({"a.jsonl": '\n{"id": "x"}\n'}, r"a\.jsonl, line 2: neither a cut of lhotse nor a line of NeMo"),
        ({"a.json": '[{"audio_filepath": "1.wav"}]'}, r"line 1: wanted one JSON object a line, found \[\{\"audio_f"),
        ({"a.csv": '"path,text\n'}, r"a\.csv, line 1: unexpected end of data"),
        ({"a.csv": "path,text\n,a\n"}, r"a\.csv, line 2: names no recording"),
        ({"a.csv": "path,text\n.,a\n"}, r"a\.csv, line 2: names no recording"),
        ({"a.jsonl": '{"audio_filepath": "", "text": "a"}\n'}, r"a\.jsonl, line 1: neither .*'' names no recording"),
        ({"a.jsonl": "[" * 200_000}, r"a\.jsonl, line 1: not JSON \(maximum recursion"),
        ({"a.jsonl": '{"audio_filepath": "a", "text": "a", "offset": "1"}\n'}, r"line 1: .*'1' is no time in seconds"),
        ({"a.jsonl": '{"audio_filepath": "a", "text": "a", "offset": NaN}\n'}, r"line 1: .*nan is no time in seconds"),
        ({"a.jsonl": '{"audio_filepath": "a", "text": "a", "duration": true}\n'}, r"True is no time in seconds"),
        ({"a.jsonl": '{"recording": {"sources": []}}\n'}, r"a\.jsonl, line 1: neither .* \(not enough values"),
        ({"a.jsonl.gz": gzip.compress(b" " * 10**7)}, r"gz: unpacks to over 200 times its size"),
        ({"a.jsonl.gz": b"no gzip"}, r"a\.jsonl\.gz: cannot be read: "),
        ({"a.jsonl.gz": gzip.compress(b"{}" * 99)[:-9]}, r"gz: the compressed data is cut short or damaged"),
        ({"a.jsonl.gz": gzip.compress(b"")[:10] + b"\xff" * 99}, r"gz: the compressed data is cut short or damaged"),
    ],
)
def test_corpora_that_cannot_be_read(tmp_path, files, message):
    [(name, content)] = files.items()
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nothing: no such file or folder"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wav.scp", "a sox /tmp/x.mp3 -t wav - |\n", r"wav\.scp: a is a command \(sox .*\), which is not run; write"),
        ("wav.scp", "b x.wav\n", r"text: a has no recording 'a' in wav\.scp"),
        ("wav.scp", "a x.wav\na y.wav\n", r"wav\.scp, line 2: 'a' is there twice; ids must differ"),
        ("text", "a one\n\na two\n", r"text, line 3: 'a' is there twice; ids must differ"),
        ("segments", "c b 1.0 2.0\n", r"segments: c has no recording 'b' in wav\.scp"),
        ("segments", "a a 1.0\n", r"segments: a a 1.0: wanted ID RECORDING START END"),
        ("segments", "a a 0 inf\n", r"segments: a a 0 inf: wanted ID RECORDING START END"),
    ],
)
def test_kaldi_folders_that_cannot_be_read(tmp_path, name, content, message):
    for file, usual in {"wav.scp": "a a.wav\n", "text": "a words\n"}.items():
        (tmp_path / file).write_text(usual)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_what_an_earlier_manifest_names_stays(tmp_path):
    sound(tmp_path / "1.wav", 3.0)

    def written(name, *starts):
        lines = [{"audio_filepath": "1.wav", "text": f"{at}", "duration": 0.5, "offset": at} for at in starts]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / name

    before = taken(written("a.jsonl", 1.0, 2.0), tmp_path)
    list(adopt(read(written("b.jsonl", 0.5, 1.5)), tmp_path / "out.audio", Ledger()))
    after = {one.id: audio.load(one.audio, RATE) for one in read_manifest(tmp_path / "out.jsonl")}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[id][-1], wave) for id, wave in after.items())


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_decomposed_hangul_in_names(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]  # macOS decomposes
    heard, named = (unicodedata.normalize(one, "안녕") for one in (form, other))
    sound(tmp_path / "corpus" / f"{heard}.wav")
    (tmp_path / "corpus" / f"{named}.txt").write_text("하나")
    assert [(id, text) for id, (text, *_) in taken(tmp_path / "corpus", tmp_path).items()] == [("안녕", "하나")]
    (tmp_path / "corpus" / "a.csv").write_text(f"path,text\n{named}.wav,하나\n", encoding="utf-8")
    assert [text for text, *_ in taken(tmp_path / "corpus" / "a.csv", tmp_path).values()] == ["하나"]
    record = {"audio_filepath": f"{named}.wav", "text": "하나", "duration": 1.0}
    (tmp_path / "corpus" / "a.jsonl").write_text(json.dumps(record), encoding="utf-8")
    assert [text for text, *_ in taken(tmp_path / "corpus" / "a.jsonl", tmp_path).values()] == ["하나"]
    recording = {"duration": 1.0, "sources": [{"type": "file", "channels": [0], "source": f"{named}.wav"}]}
    said = [{"id": "s1", "start": 0.0, "duration": 1.0, "text": "하나"}]
    cut = {"id": "c", "start": 0.0, "recording": recording, "supervisions": said}
    (tmp_path / "corpus" / "b.jsonl").write_text(json.dumps(cut), encoding="utf-8")
    assert [text for text, *_ in taken(tmp_path / "corpus" / "b.jsonl", tmp_path).values()] == ["하나"]
    (tmp_path / "corpus" / "wav.scp").write_text(f"a {tmp_path}/corpus/{named}.wav\n", encoding="utf-8")
    (tmp_path / "corpus" / "text").write_text("a 하나\n", encoding="utf-8")
    assert [text for text, *_ in taken(tmp_path / "corpus", tmp_path).values()] == ["하나"]


def left(source, tmp_path):
    ledger = Ledger()
    utterances = list(adopt(read(source), tmp_path / "out.audio", ledger))
    return [one.id for one in utterances], ledger.cases["cannot be used"]


def test_a_text_is_not_said_to_lack_a_recording_of_one_format(tmp_path):
    soundfile.write(tmp_path / "b.caf", ramp(0, 1.0).numpy(), RATE, format="CAF")
    for name in ("b.txt", "c.txt", "c.xyz"):
        (tmp_path / name).write_text("one")
    assert left(tmp_path, tmp_path) == (["b"], {"c": f"{tmp_path}/c.*: no such file"})


def test_recordings_without_a_transcript_are_counted_and_named(tmp_path):
    for name in ("a/1", "a/2", "b"):
        sound(tmp_path / "folder" / f"{name}.wav")
    (tmp_path / "folder" / "a" / "1.txt").write_text("one")
    assert left(tmp_path / "folder", tmp_path) == (
        ["a/1"],
        {name: f"{tmp_path}/folder/{name}.wav: no transcript of it" for name in ("a/2", "b")},
    )
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text("".join(f"{name}\t{tmp_path}/folder/{name}.wav\n" for name in ("a/1", "b")))
    (kaldi / "text").write_text("a/1 one\n")
    assert left(kaldi, tmp_path) == (["a/1"], {"b": f"{tmp_path}/folder/b.wav: no transcript of it"})
    (kaldi / "segments").write_text("s1 b 0 0.5\ns2 b 0.5 1\n")
    (kaldi / "text").write_text("s1 one\n")
    assert left(kaldi, tmp_path) == (["s1"], {"s2": f"{tmp_path}/folder/b.wav: no transcript of it"})
    recording = {"id": "r", "duration": 1.0, "sources": [{"type": "file", "channels": [0], "source": "b.wav"}]}
    cut = {"id": "c", "start": 0.0, "duration": 1.0, "recording": recording, "supervisions": []}
    (tmp_path / "folder" / "cuts.jsonl").write_text(json.dumps(cut))
    assert left(tmp_path / "folder" / "cuts.jsonl", tmp_path) == (
        [],
        {"c": f"{tmp_path}/folder/b.wav: no transcript of it"},
    )


def test_speakers_of_nemo_may_be_numbers(tmp_path):
    sound(tmp_path / "1.wav")
    (tmp_path / "a.json").write_text('{"audio_filepath": "1.wav", "text": "one", "speaker": 7}\n')
    assert taken(tmp_path / "a.json", tmp_path)["1"][1] == "7"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transforms": [{"name": "Speed", "kwargs": {"factor": 1.1}}]}, "c: its recording is changed as it is read"),
        (
            {"sources": [{"type": "file", "channels": [0, 1], "source": "x.wav"}]},
            "c: one of 2 channels; save each to a",
        ),
    ],
)
def test_cuts_of_lhotse_that_are_not_what_their_files_hold_are_refused(tmp_path, changes, message):
    recording = {
        "id": "r",
        "duration": 3.0,
        "sources": [{"type": "file", "channels": [0], "source": "x.wav"}],
    } | changes
    said = [{"id": "s", "start": 0.0, "duration": 1.0, "text": "one"}]
    cut = {"id": "c", "start": 0.0, "channel": 0, "recording": recording, "supervisions": said}
    (tmp_path / "cuts.jsonl").write_text(json.dumps(cut))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "cuts.jsonl")


def test_a_cut_of_lhotse_whose_audio_is_a_command_is_refused(tmp_path):
    recording = {"id": "r", "duration": 3.0, "sources": [{"type": "command", "source": "rm -rf /"}]}
    cut = {"id": "c", "start": 0.0, "recording": recording, "supervisions": []}
    (tmp_path / "cuts.jsonl").write_text(json.dumps(cut))
    with pytest.raises(UserError, match="c: its recording is of type 'command'; wanted file, nothing is run"):
        read(tmp_path / "cuts.jsonl")
