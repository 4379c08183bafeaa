from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import unicodedata

import pytest

from las.data.manifest import read_manifest
from las.recipe import DEFAULT_MODEL, models
from las.transcribe.recognizer import Segment, Transcript
from las.transcribe.verdict import OK, Verdict


def test_one_file_is_its_text_alone(las, trained, corpus):
    assert las("transcribe", corpus / "wav/valid-0.wav", "--model", trained / "model") == (0, "ab\n", "")


def test_nine_of_ten_files(las, trained, voices, tools):
    status, out, err = las("transcribe", "--model", trained / "model", "--", *voices)
    assert status == 1
    assert out.splitlines() == [f"{path}: {tools.texts[n % 8]}" for n, path in enumerate(voices[:-1])]
    assert err.splitlines()[0].startswith(f"las: {voices[-1]}: ")
    assert err.splitlines()[1:] == ["las: 1 of 10 files were not transcribed"]


def test_folders_and_globs(las, trained, voices, tmp_path, tools, monkeypatch):
    folder = voices[0].parent
    voices[-1].unlink()
    (folder / "notes.txt").write_text("no audio")
    (folder / "a folder.wav").mkdir()
    tools.write_wav(folder / "deep/er/K.WAV", tools.sing("ab"))
    _, out, err = las("transcribe", folder, "--model", trained / "model")
    assert err == ""
    assert {line.split(": ")[0] for line in out.splitlines()} == {
        str(p) for p in [*voices[:-1], folder / "deep/er/K.WAV"]
    }
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/deep").symlink_to(folder / "deep")
    assert las("transcribe", tmp_path / "linked", "--model", trained / "model") == (0, "ab\n", "")
    assert las("transcribe", f"{folder}/**/K.*", "--model", trained / "model") == (0, "ab\n", "")
    assert las("transcribe", folder / "[h].wav", "--model", trained / "model")[0] == 0  # a name, not a glob


def test_what_a_folder_holds_besides_is_counted(las, trained, tools, tmp_path, monkeypatch):
    folder = tmp_path / "mixed"
    tools.write_wav(folder / "a.wav", tools.sing("ab"))
    for name in ("a.txt", ".hidden", ".git/config"):  # nobody misses them
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no audio")
    monkeypatch.chdir(folder)
    for place in (folder, "."):
        assert las("transcribe", place, "--model", trained / "model") == (0, "ab\n", "")
    for name in ("c.xyz", "b.raw"):
        (folder / name).write_text("no audio")
    status, out, err = las("transcribe", folder, "--model", trained / "model")
    assert (status, out) == (0, "ab\n")
    assert err == (
        f"las: {folder}: passed over 2 files whose names are not those of recordings (first: {folder / 'b.raw'})\n"
    )


def test_folders_are_no_matches_of_a_glob(las, complaint, trained, tools, tmp_path):
    tools.write_wav(tmp_path / "in" / "sub" / "a.wav", tools.sing("ab"))
    tools.write_wav(tmp_path / "in" / "b.wav", tools.sing("ba ab"))
    model = ("--model", trained / "model")
    assert las("transcribe", f"{tmp_path}/in/*", *model) == (0, "ba ab\n", "")
    status, out, err = las("transcribe", f"{tmp_path}/in/**", *model)
    assert (status, sorted(line.split(": ")[1] for line in out.splitlines()), err) == (0, ["ab", "ba ab"], "")
    assert complaint("transcribe", f"{tmp_path}/in/s*", *model).endswith("in/s*: matches no file")


@pytest.mark.parametrize(("given", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_either_form_of_unicode(las, trained, tools, tmp_path, monkeypatch, given, there):
    monkeypatch.chdir(tmp_path)
    path = tools.write_wav(tmp_path / unicodedata.normalize(there, "소리/하나.wav"), tools.sing("ab"))
    assert path.is_file()
    for name in ("소리/하나.wav", "소리", "소리/*.wav", "소리/하*", "소*/하*", "./소리/하*", f"{tmp_path}/소리/하*"):
        asked = unicodedata.normalize(given, name)
        assert las("transcribe", asked, "--model", trained / "model") == (0, "ab\n", "")


def test_json_lines(las, trained, voices, tools):
    status, out, _ = las("transcribe", *voices[:3], "-f", "json", "--model", trained / "model")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(one["file"], one["text"]) for one in found] == [(str(p), tools.texts[n]) for n, p in enumerate(voices[:3])]
    keys = {"file", "text", "seconds", "score", "complete", "verdict", "complaints", "segments"}
    assert all(one.keys() == keys for one in found)
    assert found[1]["segments"] == [
        {"start": 0.0, "end": 0.6, "text": "ba ab", "score": found[1]["score"], "complete": True, "verdict": "ok"}
    ]
    assert "두 번째" in out  # readable


def test_words_and_alternatives_on_demand(las, trained, voices):
    words = ("-f", "json", "--word-timestamps", "--n-best", 2, "--beam-size", 4, "--batch-seconds", 1)
    status, out, _ = las("transcribe", voices[1], *words, "--model", trained / "model")
    [segment] = json.loads(out)["segments"]
    assert status == 0
    assert [word["word"] for word in segment["words"]] == ["ba", "ab"]
    times = [time for word in segment["words"] for time in (word["start"], word["end"])]
    assert times == pytest.approx([0, 0.24, 0.36, 0.6], abs=0.03)
    assert all(0 < word["confidence"] < 1 for word in segment["words"])
    assert segment["alternatives"][0]["text"] == "ba ab"
    assert len({one["text"] for one in segment["alternatives"]}) == 2


def test_a_bad_verdict_is_told_and_strict_fails(las, trained, voices, monkeypatch):
    said = {"ab": Verdict("loop", 0.1, "why"), "ba ab": OK}
    asked = []

    class Recognizer:
        def phrases(self, words):
            return []

        def stream(self, paths, retry, **_):
            asked.append(retry)
            for path, (text, verdict) in zip(paths, said.items(), strict=True):
                pieces = [Segment(text, n, n + 1, 0.0, True, verdict=verdict) for n in range(3)]
                yield Transcript(path, 3.0, tuple(pieces))

    monkeypatch.setattr(models, "open_model", lambda *_: (Recognizer(), None))
    status, out, err = las("transcribe", *voices[:2])
    assert (status, len(out.splitlines())) == (0, 2)
    assert err == f"las: {voices[0]}: loop at 0.1 s: why (and 2 more)\n"
    status, strict, err = las("transcribe", *voices[:2], "--strict", "--retry")
    assert (status, strict, asked) == (1, out, [False, True])
    assert err.splitlines()[1:] == ["las: 1 of 2 transcripts have a verdict that is not ok"]
    del said["ab"]
    assert las("transcribe", voices[1], "--strict") == (0, "ba ab ba ab ba ab\n", "")


def test_what_cannot_be_told_apart_is_refused(las, voices):
    for words in (("-f", "srt"), ("-f", "vtt"), ("-f", "tsv")):
        status, out, err = las("transcribe", *voices[:2], *words)
        assert (status, out) == (2, "")
        assert f"{words[1]} of 2 recordings need files of their own" in err
    assert "all formats need files of their own" in las("transcribe", voices[0], "-f", "all")[2]
    assert "only json has room for more than one transcript" in las("transcribe", voices[0], "--n-best", "2")[2]


def test_all_formats_at_once(las, trained, voices, tmp_path):
    status, out, err = las("transcribe", *voices[:2], "-f", "all", "-o", tmp_path / "o", "--model", trained / "model")
    assert (status, out, err) == (0, "", "")
    names = {f"{path.stem}.{kind}" for path in voices[:2] for kind in ("txt", "json", "srt", "vtt", "tsv", "ctm")}
    assert {path.name for path in (tmp_path / "o").iterdir()} == names
    assert (tmp_path / "o/두 번째.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> 00:00:00,")
    assert (tmp_path / "o/두 번째.ctm").read_text(encoding="utf-8").startswith("두_번째 1 0.000 0.2")


@pytest.mark.parametrize(
    ("form", "content"), [("txt", r"ba ab\n"), ("tsv", r"start\tend\ttext\n0\t(59\d|600)\tba ab\n")]
)
def test_a_file_for_each_recording(las, trained, voices, tmp_path, form, content):
    output = tmp_path / "새 폴더" / "out"
    status, out, _ = las("transcribe", *voices[:6], "-f", form, "-o", output, "--model", trained / "model")
    assert (status, out) == (0, "")
    assert sorted(path.name for path in output.iterdir()) == sorted(path.stem + "." + form for path in voices[:6])
    assert re.fullmatch(content, (output / f"두 번째.{form}").read_text(encoding="utf-8"))


def test_two_recordings_of_one_name_are_not_written_over_each_other(complaint, trained, voices, tools, tmp_path):
    other = tools.write_wav(tmp_path / "one.flac.wav", tools.sing("a")).rename(tmp_path / "one.wav")
    output = tmp_path / "out"
    found = complaint("transcribe", voices[0], other, "-o", output, "--model", trained / "model")
    assert found == f"{voices[0]} and {other} would both be written to one.txt; transcribe them into different folders"
    assert not output.exists()
    pair = [tools.write_wav(tmp_path / name, tools.sing("a")) for name in ("두 개.wav", "두_개.wav")]
    found = complaint("transcribe", *pair, "-f", "ctm", "--model", trained / "model")
    assert found.startswith(f"{pair[0]} and {pair[1]} would both be written to 두_개.ctm")


def test_transcripts_of_a_folder_keep_its_folders(las, trained, voices, tools, tmp_path):
    """Each speaker's recordings are 1.wav, 2.wav ..."""
    for speaker, text in (("철수", "ab"), ("영희", "ba ab")):
        (tmp_path / "in" / speaker).mkdir(parents=True)
        tools.write_wav(tmp_path / "in" / speaker / "1.wav", tools.sing(text))
    assert las("transcribe", tmp_path / "in", "-o", tmp_path / "out", "--model", trained / "model") == (0, "", "")
    assert (tmp_path / "out/철수/1.txt").read_text() == "ab\n"
    assert (tmp_path / "out/영희/1.txt").read_text() == "ba ab\n"


def test_a_transcript_beside_its_recording_is_not_written_over(las, complaint, trained, voices, monkeypatch):
    folder, model = voices[0].parent, trained / "model"
    monkeypatch.chdir(folder)
    beside = voices[0].with_suffix(".srt")
    beside.write_text("by hand")
    found = complaint("transcribe", voices[1].name, voices[0].name, "-f", "all", "-o", ".", "--model", model)
    assert found == (
        f"{beside.name} stands beside its recording and may have been written by hand; "
        "name another folder with -o, or take it away first"
    )
    assert beside.read_text() == "by hand"
    assert not voices[1].with_suffix(".txt").exists()  # nothing was begun
    for _ in range(2):  # one's own folder is written again
        assert las("transcribe", voices[0], "-f", "srt", "-o", folder / "out", "--model", model) == (0, "", "")
    assert beside.read_text() == "by hand"


def test_an_output_folder_that_cannot_be_written(complaint, random_model, voices, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        found = complaint("transcribe", voices[0], "-o", output, "--model", random_model)
        why = "it is a file" if output.name == "file" else "Not a directory"
        assert found == f"{output}: no folder that results can be written to: {why}"


def test_inputs_that_are_not_there(las, complaint, random_model, tmp_path):
    (tmp_path / "빈 폴더").mkdir()
    model = ("--model", random_model)
    assert complaint("transcribe", tmp_path / "빈 폴더", *model).endswith("빈 폴더: no audio files in this folder")
    assert complaint("transcribe", f"{tmp_path}/*.mp3", *model).endswith("*.mp3: matches no file")
    assert complaint("transcribe", "", *model) == "a file without a name; wanted an audio file, a folder or a pattern"
    status, out, err = las("transcribe", tmp_path / "없음.wav", *model)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"las: {tmp_path}/없음.wav: there is no such file", "las: 1 of 1 files were not transcribed",
    ]  # fmt: skip


def test_models_and_devices_that_are_not_there(complaint, voices, random_model):
    assert "no model 'nobody': neither a model folder nor one of those that ship" in complaint(
        "transcribe", voices[0], "--model", "nobody"
    )
    assert "device 'gpu': wanted auto, cpu, cuda or cuda:N" in complaint(
        "transcribe", voices[0], "--model", random_model, "--device", "gpu"
    )
    (random_model / "config.yaml").write_text("format: 9\n")
    assert "model format 9, this version of las reads format 2" in complaint(
        "transcribe", voices[0], "--model", random_model
    )


def test_a_recording_from_stdin(random_model, voices):
    command = [sys.executable, "-m", "las", "transcribe", "-f", "json", "--model", str(random_model)]
    named = subprocess.run([*command, str(voices[0])], capture_output=True, check=True)
    piped = subprocess.run([*command, "-"], input=voices[0].read_bytes(), capture_output=True, check=True)
    assert json.loads(piped.stdout) == {**json.loads(named.stdout), "file": "/dev/stdin"}


def test_ctrl_c_is_one_line(las, random_model, voices, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("las.recipe.models.open_model", stop)
    assert las("transcribe", voices[0], "--model", random_model) == (130, "", "las: interrupted\n")


def test_a_file_name_that_is_not_utf_8(random_model, tools, tmp_path):
    path = tools.write_wav(tmp_path / "a.wav", tools.sing("ab")).rename(
        tmp_path / b"\xb0\xa1.wav".decode("utf-8", "surrogateescape")
    )
    command = [sys.executable, "-m", "las", "transcribe", "-f", "json", "--model", str(random_model), str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stderr.count(b"\n") == done.stderr.count(b"\xb0\xa1.wav: ")  # a verdict on it, no more
    assert b"\xb0\xa1.wav" in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(random_model, voices):
    command = [sys.executable, "-m", "las", "transcribe", "--model", str(random_model), *map(str, voices[:3])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() != 0
    assert b"Traceback" not in err


def test_models_lists_what_ships(las, random_model, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "PRETRAINED", tmp_path / "pretrained")
    assert las("models") == (0, "", "")
    for name, text in ((DEFAULT_MODEL, "Reads numbers. 숫자."), ("zebra", "Reads stripes.")):
        shutil.copytree(random_model, tmp_path / "pretrained" / name)
        card = tmp_path / "pretrained" / name / "README.md"
        card.write_text(f"# {name}\n\n{text}\n\nMore.\n", encoding="utf-8")
    listed = f"{DEFAULT_MODEL} (default)\t0.1 MB\tReads numbers. 숫자.\nzebra\t0.1 MB\tReads stripes.\n"
    assert las("models") == (0, listed, "")


def test_hot_words_come_as_words_or_as_a_file(las, complaint, trained, corpus, tmp_path):
    recording = next(one.audio for one in read_manifest(corpus / "valid.jsonl") if one.text == "ab")
    model = ("--model", trained / "model")
    words = tmp_path / "말.txt"
    words.write_text("cc\n\nbb\n", encoding="utf-8")
    for hot in ("cc, bb,", "cc," * 200 + "bb", words):  # longer than a file's name can be
        status, out, err = las("transcribe", recording, *model, "--hot-words", hot, "--hot-word-bonus", "8")
        assert status == 0
        assert all(line.startswith(f"las: {recording}: ") for line in err.splitlines())  # words by bonus are doubted
        assert "cc" in out or "bb" in out
    assert las("transcribe", recording, *model, "--hot-words", "cc", "--hot-word-bonus", 0)[1].strip() == "ab"
    assert "hot word '서울': the model's tokens cannot write '서울'" in complaint(
        "transcribe", recording, *model, "--hot-words", "서울"
    )


def test_a_language_model_that_is_not_there(complaint, trained, voices, tmp_path):
    words = ("--model", trained / "model", "--language-model", tmp_path / "말 🙂" / "no.arpa")
    assert "말 🙂/no.arpa" in complaint("transcribe", voices[0], *words)
