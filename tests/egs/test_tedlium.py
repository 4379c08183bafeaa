"""The tedlium recipe: talks in SPHERE cut by their stm, both releases' folders."""

import json

import pytest

from las.audio import load
from las.data.manifest import read_manifest

TALKS = {
    "train/AaronHuey_2010X": (
        "1 AaronHuey_2010X 1.00 2.00 <o,f0,male> i 'm here {BREATH} to(2) <sil> day",
        "1 AaronHuey_2010X 2.25 3.50 <o,f0,male> here today (AaronHuey_2010X-2.25-3.50-F0_M-S1)",
        "1 inter_segment_gap 3.50 4.00 <o,,unknown> ignore_time_segment_in_scoring",
    ),
    "dev/BillGates_2010": ("1 BillGates_2010 0.00 1.50 <o,f0,male> i 'm here",),
    "test/AimeeMullins_2009P": (
        "1 inter_segment_gap 0 0.5 <o,,unknown> ignore_time_segment_in_scoring",
        "1 AimeeMullins 0.5 2.00 <o,f0,female> here today",
    ),
}


@pytest.fixture
def prepare(tools):
    return tools.load_script("tedlium")


def write_sets(root, tools, sph="sph"):
    for place, lines in TALKS.items():
        name, talk = place.split("/")
        tools.write_tone(root / name / sph / f"{talk}.sph", 1, 4.0, format="NIST", subtype="PCM_16")
        (root / name / "stm").mkdir()
        text = ";; a comment\n" + "".join(f"{talk} {line}\n" for line in lines)
        (root / name / f"stm/{talk}.stm").write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def second(tmp_path, tools):
    return write_sets(tmp_path / "second" / "TEDLIUM_release2", tools)


@pytest.fixture
def third(tmp_path, tools):
    """Release 3: legacy/train/sph links to data/sph, where the other repartition finds its talks as well."""
    root = tmp_path / "third" / "TEDLIUM_release-3"
    write_sets(root / "legacy", tools)
    talk = "AaronHuey_2010X.sph"
    (root / "data/sph").mkdir(parents=True)
    (root / "legacy/train/sph" / talk).rename(root / "data/sph" / talk)
    (root / "legacy/train/sph" / talk).symlink_to(f"../../../data/sph/{talk}")
    return root


@pytest.mark.parametrize("release", [2, 3])
def test_segments_become_files_of_their_own(prepare, second, third, tmp_path, release):
    corpus = (second if release == 2 else third).parent
    options = ["--corpus", str(corpus), "--output", str(tmp_path / "out"), "--release", str(release)]
    assert prepare.main(options) == 0
    train = read_manifest(tmp_path / "out/train.jsonl")
    assert [(one.id, one.text, one.speaker, one.seconds) for one in train] == [
        ("AaronHuey_2010X-0000100-0000200", "i'm here to day", "AaronHuey_2010X", 1.0),
        ("AaronHuey_2010X-0000225-0000350", "here today", "AaronHuey_2010X", 1.25),
    ]
    talk = load(corpus / ("TEDLIUM_release2" if release == 2 else "TEDLIUM_release-3/legacy") /
                "train/sph/AaronHuey_2010X.sph", 16_000)  # fmt: skip
    assert load(train[0].audio, 16_000).equal(talk[16_000:32_000])
    assert [one.speaker for one in read_manifest(tmp_path / "out/test.jsonl")] == ["AimeeMullins"]
    assert json.loads((tmp_path / "out/corpus.json").read_text(encoding="utf-8")) == {"release": release}


def test_the_folder_with_the_sets_is_taken_too(prepare, second, third, tmp_path):
    for number, corpus in enumerate((second, third, third / "legacy")):
        assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / f"out{number}")]) == 0


def test_a_missing_talk_stops_it(prepare, second, tmp_path, capsys):
    (second / "dev/sph/BillGates_2010.sph").unlink()
    assert prepare.main(["--corpus", str(second), "--output", str(tmp_path / "out")]) == 1
    assert "dev: no sph/BillGates_2010.sph; the copy is not whole" in capsys.readouterr().err


def test_no_talks_at_all(prepare, tmp_path, capsys):
    assert prepare.main(["--corpus", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 1
    assert "nowhere/train: no stm/*.stm; the copy is not whole" in capsys.readouterr().err


def test_a_segment_beyond_its_talk_is_counted(prepare, second, tmp_path, capsys):
    path = second / "dev/stm/BillGates_2010.stm"
    path.write_text("BillGates_2010 1 BillGates_2010 3.5 9.0 <o,f0,male> here\n", encoding="utf-8")
    assert prepare.main(["--corpus", str(second), "--output", str(tmp_path / "out")]) == 1
    assert "1 of 1 utterances left out, more than 1.0%" in capsys.readouterr().err


def test_a_line_that_is_no_segment(prepare, second, tmp_path, capsys):
    path = second / "dev/stm/BillGates_2010.stm"
    path.write_text("BillGates_2010 1 from here to there\n", encoding="utf-8")
    assert prepare.main(["--corpus", str(second), "--output", str(tmp_path / "out")]) == 1
    assert "BillGates_2010.stm, line 1: wanted TALK CHANNEL SPEAKER START END" in capsys.readouterr().err


def test_from_the_archive_to_results(third, mirror, run_recipe, tools):
    address, folder = mirror
    tools.pack(folder / "51/TEDLIUM_release-3.tgz", third.parent)
    status, output, said = run_recipe("tedlium", "model.listener.reduce=[1]", PREPARE=f"--release 3 --mirror {address}")
    assert status == 0, said
    assert (output / "RESULTS.md").read_text(encoding="utf-8").count("/ N 2)") == 2
