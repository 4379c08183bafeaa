"""Text files to sentences."""

import gzip
import lzma

import pytest

from las.data import sentences
from las.data.manifest import Utterance, write_manifest
from las.data.sentences import read_sentences
from las.errors import UserError

TEXT = "\ufeffOne, two!\n\n  \n“Three” — four\r\n각하\n!!!\nlast"


def test_all_kinds_of_files_say_the_same_in_the_style_asked_for(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(TEXT.encode()))
    for name in ("a.txt", "a.txt.gz", "a.txt.xz"):
        assert list(read_sentences([tmp_path / name], "basic")) == ["one two", "three four", "각하", "last"]
    assert list(read_sentences([tmp_path / "a.txt"] * 2, "verbatim"))[4:6] == ["last", "One, two!"]


def test_manifests_give_their_texts(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [Utterance("1", "none.wav", "One Two"), Utterance("2", "none.wav", "three")])
    assert list(read_sentences([str(tmp_path / "m.jsonl")], "basic")) == ["one two", "three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.txt", None, "no.txt: cannot be read: No such file"),
        ("cut.gz", gzip.compress(TEXT.encode() * 99)[:-9], "after line .* the compressed data is cut short or damaged"),
        ("cut.xz", lzma.compress(TEXT.encode() * 99)[:-30], "after line .* the compressed data is cut short or damage"),
        ("not.xz", b"plain text", "not.xz: after line 0 the compressed data is cut short or damaged"),
        ("not.gz", b"plain text", "not.gz: cannot be read: Not a gzipped file"),
        ("latin.txt", "ja\nné".encode("latin-1"), "latin.txt: after line .* the text is not UTF-8"),
        ("long.txt", b"a" * 200, "long.txt, line 1: over 100 characters; wanted a sentence a line"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(sentences, "LONGEST_LINE", 100)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_sentences([tmp_path / name], "verbatim"))


def test_a_file_is_read_as_it_is_asked_for(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n" * 100_000 + b"\xff\n")
    lines = read_sentences([tmp_path / "a.txt"], "verbatim")
    assert [next(lines) for _ in range(3)] == ["good"] * 3
    with pytest.raises(UserError, match="after line 9"):
        list(lines)
