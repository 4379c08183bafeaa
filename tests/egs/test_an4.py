"""The an4 recipe: SPHERE files as they are, raw ones by their byte order."""

import numpy as np
import pytest

from las.audio import load
from las.data.manifest import read_manifest

TREE = {  # folder/speaker -> id -> text
    "an4_clstk/fash": {"an251-fash-b": "YES", "cen1-fash-b": "TWO SIX EIGHT"},
    "an4_clstk/fbbh": {"an86-fbbh-b": "RUBOUT TWO", "cen2-fbbh-b": "YES SIX EIGHT"},
    "an4test_clstk/fcaw": {"an406-fcaw-b": "SIX YES", "cen8-fcaw-b": "EIGHT"},
}


@pytest.fixture
def prepare(tools):
    return tools.load_script("an4")


@pytest.fixture
def corpus(tmp_path, tools):
    root = tmp_path / "published tree" / "an4"
    lists = {name: ([], []) for name in ("train", "test")}
    for place, texts in TREE.items():
        fileids, transcription = lists["test" if "test" in place else "train"]
        for number, (id, text) in enumerate(texts.items()):
            tools.write_tone(root / "wav" / place / f"{id}.sph", number, 1.5, format="NIST", subtype="PCM_16")
            fileids.append(f"{place}/{id}\n")
            transcription.append(f"{text} ({id})\n" if "test" in place else f"<s> {text} </s> ({id})\n")
    (root / "etc").mkdir()
    for name, (fileids, transcription) in lists.items():
        (root / f"etc/an4_{name}.fileids").write_text("".join(fileids), encoding="utf-8")
        (root / f"etc/an4_{name}.transcription").write_text("".join(transcription), encoding="utf-8")
    return root


def as_raw(corpus, order):
    for path in corpus.rglob("*.sph"):
        samples = (load(path, 16_000).numpy() * 32768).astype(order)
        path.with_suffix(".raw").write_bytes(samples.tobytes())
        path.unlink()


def test_sphere_files_become_manifests(prepare, corpus, tmp_path):
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 0
    sets = {name: read_manifest(tmp_path / f"out/{name}.jsonl") for name in ("train", "dev", "test")}
    assert [(one.id, one.text, one.speaker) for one in sets["dev"]] == [
        ("an251-fash-b", "yes", "fash"),
        ("cen1-fash-b", "two six eight", "fash"),
    ]
    assert [(one.id, one.text) for one in sets["train"]] == [
        ("an86-fbbh-b", "rubout two"),
        ("cen2-fbbh-b", "yes six eight"),
    ]
    assert [one.text for one in sets["test"]] == ["six yes", "eight"]
    assert sets["test"][0].audio == str(corpus / "wav/an4test_clstk/fcaw/an406-fcaw-b.sph")


def test_big_endian_raw_files_become_flac(prepare, corpus, tmp_path):
    before = load(corpus / "wav/an4_clstk/fash/an251-fash-b.sph", 16_000)
    as_raw(corpus, ">i2")
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 0
    one = read_manifest(tmp_path / "out/dev.jsonl")[0]
    assert one.audio == str(tmp_path / "out/audio/an251-fash-b.flac")
    assert np.array_equal(load(one.audio, 16_000), before)


def test_little_endian_raw_files_are_refused(prepare, corpus, tmp_path, capsys):
    as_raw(corpus, "<i2")
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert ".raw: seems little-endian; wanted an4_sphere or an4_raw.bigendian" in capsys.readouterr().err


def test_half_a_sample_is_refused(prepare, corpus, tmp_path, capsys):
    as_raw(corpus, ">i2")
    (corpus / "wav/an4_clstk/fbbh/an86-fbbh-b.raw").write_bytes(b"\0\0\0")
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert "an86-fbbh-b.raw: 3 bytes, not whole samples of 16 bits" in capsys.readouterr().err


def test_a_missing_recording_stops_it(prepare, corpus, tmp_path, capsys):
    (corpus / "wav/an4test_clstk/fcaw/cen8-fcaw-b.sph").unlink()
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert "fcaw/cen8-fcaw-b: no recording of that name (.sph, .wav, .flac, .raw); the copy" in capsys.readouterr().err


def test_a_line_that_is_no_transcript(prepare, corpus, tmp_path, capsys):
    (corpus / "etc/an4_test.transcription").write_text("SIX YES\n", encoding="utf-8")
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert "an4_test.transcription, line 1: wanted <s> WORDS </s> (ID), found 'SIX YES'" in capsys.readouterr().err


def test_from_the_archive_to_results(corpus, mirror, run_recipe, tools):
    address, folder = mirror
    tools.pack(folder / "an4_sphere.tar.gz", corpus.parent)
    status, output, said = run_recipe("an4", PREPARE=f"--mirror {address}")
    assert status == 0, said
    assert "/ N 3)" in (output / "RESULTS.md").read_text(encoding="utf-8")
