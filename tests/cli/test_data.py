from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from las.data.manifest import Utterance, read_manifest, write_manifest
from las.data.shards import read_index
from las.text.tokenizer import Tokenizer


def test_a_tokenizer_from_manifests_and_texts(las, corpus, tmp_path):
    (tmp_path / "글.txt").write_text("가나\n\n다 라\n", encoding="utf-8")
    output = tmp_path / "새" / "tokenizer.model"
    status, out, err = las("tokenizer", corpus / "train.jsonl", tmp_path / "글.txt", "-o", output, "--kind", "char")
    assert (status, err) == (0, "")
    assert out == f"{output}: 12 tokens (char; 500 asked for)\n"
    assert Tokenizer.load(output).unknown("가나다라 abc x") == "x"


def test_a_tokenizer_takes_no_text_s_place(complaint, tmp_path):
    (tmp_path / "글.txt").write_text("가나\n", encoding="utf-8")
    message = f"{tmp_path}/글.txt: would overwrite what it is made from; name another file"
    assert complaint("tokenizer", tmp_path / "글.txt", "-o", tmp_path / "글.txt", "--kind", "char") == message
    assert (tmp_path / "글.txt").read_text(encoding="utf-8") == "가나\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.txt"], "nowhere.txt: cannot be read: "),
        (["nowhere.jsonl"], "nowhere.jsonl: cannot read the manifest: No such file"),
        (["latin.txt"], "latin.txt: after line 0 the text is not UTF-8: "),
        (["empty.txt"], "no text to train a tokenizer on: "),
        (["good.txt", "-o", "."], ".: a folder; name the tokenizer's file, such as tokenizer.model"),
        (["good.txt", "--size", "5"], "tokenizer size 5 is too small: the texts hold"),
        (["good.txt", "--kind", "chars"], "unknown kind of tokenizer 'chars'; did you mean 'char'?"),
    ],
)
def test_a_tokenizer_that_cannot_be_made(complaint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "good.txt").write_text("one two three\n")
    assert complaint("tokenizer", "-o", "out.model", *words).startswith(message)
    assert not (tmp_path / "out.model").exists()


def test_shards_from_a_manifest(las, corpus, tmp_path):
    status, out, err = las("shard", corpus / "valid.jsonl", "-o", tmp_path / "조각", "--workers", "2")
    assert (status, err) == (0, "")
    assert out == f"{tmp_path / '조각'}: 8 utterances, 0.00 h, 1 shards\n"
    assert len(read_index(tmp_path / "조각")) == 8


def test_shards_without_what_cannot_be_used(las, voices, tmp_path):
    utterances = [Utterance(f"발화 {n}", str(path), "ab" if n else "") for n, path in enumerate(voices)]
    write_manifest(tmp_path / "all.jsonl", utterances)
    status, out, err = las("shard", tmp_path / "all.jsonl", "-o", tmp_path / "out", "--leave-out", "0.2")
    assert status == 0
    assert out.startswith(f"{tmp_path}/out: 8 utterances")
    assert "empty text: 1 (first: 발화 0)" in err
    assert f"audio cannot be decoded: 1 (first: 발화 9: {voices[-1]}: " in err
    status, out, err = las("shard", tmp_path / "all.jsonl", "-o", tmp_path / "strict")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "2 of 10 utterances left out, more than 1.0%" in err
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "set.jsonl, line 2: not JSON"),
        ('{"id": "b", "audio": "one.wav"}', "set.jsonl, line 2: lacks the field 'text'"),
        ('{"id": "a", "audio": "one.wav", "text": "b"}', 'line 2: the id "a" was already used in line 1'),
        ('{"id": "b", "audio": "nowhere.wav", "text": "b"}', "1 of 2 audio paths are not files: "),
        (
            '{"id": "b", "audio": "one.wav", "text": "b", "txt": ""}',
            "line 2: unknown field \"txt\" (did you mean 'text'?)",
        ),
    ],
)
def test_a_manifest_that_is_wrong(complaint, tools, tmp_path, line, message):
    tools.write_wav(tmp_path / "one.wav", tools.sing("a"))
    first = '{"id": "a", "audio": "one.wav", "text": "a"}\n'
    (tmp_path / "set.jsonl").write_text(first + line + "\n", encoding="utf-8")
    assert message in complaint("shard", tmp_path / "set.jsonl", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_shards_is_not_written_over(complaint, corpus):
    assert "holds shards already" in complaint("shard", corpus / "valid.jsonl", "-o", corpus / "shards/valid")


def test_a_corpus_of_another_program_is_imported(las, complaint, tools, tmp_path):
    for number in range(2):
        tools.write_wav(tmp_path / f"{number}.wav", tools.sing("ab", number))
    (tmp_path / "corpus.csv").write_text("path,sentence\n0.wav,하나\n1.wav,둘\n2.wav,셋\n", encoding="utf-8")
    words = ("import", tmp_path / "corpus.csv", "-o", tmp_path / "train.jsonl")
    assert re.match(
        r"1 of 3 utterances left out, .* \(cannot be used: 1 \(first: 2: .*2\.wav: no such file", complaint(*words)
    )
    status, out, err = las(*words, "--leave-out", "0.5")
    assert (status, out) == (0, f"{tmp_path / 'train.jsonl'}: 2 utterances\n")
    assert err.startswith("las: left out: cannot be used: 1 (first: 2: ")
    assert [one.text for one in read_manifest(tmp_path / "train.jsonl")] == ["하나", "둘"]
    itself = ("import", tmp_path / "train.jsonl", "-o", tmp_path / "train.jsonl")
    assert complaint(*itself) == f"{tmp_path}/train.jsonl: would overwrite what it is made from; name another file"


def test_where_no_more_can_be_written_an_import_leaves_no_manifest(complaint, tools, tmp_path, monkeypatch):
    tools.write_wav(tmp_path / "1.wav", tools.sing("ab"))
    (tmp_path / "a.json").write_text('{"audio_filepath": "1.wav", "text": "ab", "offset": 0, "duration": 0.1}\n')
    words = ("import", tmp_path / "a.json", "-o", tmp_path / "train.jsonl")

    def full(path, data):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))  # as under RLIMIT_FSIZE

    monkeypatch.setattr(Path, "write_bytes", full)
    assert complaint(*words) == "disk: File too large"
    assert not (tmp_path / "train.jsonl").exists()


def test_a_report_takes_no_set_s_place(complaint, corpus, tmp_path):
    manifest = shutil.copy(corpus / "valid.jsonl", tmp_path)
    message = f"{manifest}: would overwrite what it is made from; name another file"
    assert complaint("doctor", "data", manifest, "-o", manifest) == message


def test_the_doctor_looks_at_data(las, corpus, tmp_path):
    shards = corpus / "shards" / "train"
    sets = (shards, f"again={shards}")
    words = (*sets, "--tokenizer", corpus / "tokenizer.model", "-o", tmp_path / "검사.json")
    status, out, err = las("doctor", "data", *words)
    assert (status, err) == (0, "")
    assert re.search(r"^train: utterances \d+, ", out)
    assert "id in several sets" in out
    report = json.loads((tmp_path / "검사.json").read_text(encoding="utf-8"))
    assert set(report["sets"]) == {"train", "again"}
