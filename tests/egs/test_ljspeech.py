"""The ljspeech recipe: metadata.csv's third column, a split of its own."""

import pytest

from las.data.manifest import read_manifest


@pytest.fixture
def prepare(tools):
    return tools.load_script("ljspeech")


@pytest.fixture
def corpus(tmp_path, tools):
    root = tmp_path / "published tree" / "LJSpeech-1.1"
    lines = []
    for number in range(16):
        id = f"LJ001-{number + 1:04d}"
        tools.write_tone(root / f"wavs/{id}.wav", number, 2.0, 22_050, subtype="PCM_16")
        lines.append(f"{id}|Dr. X said: 2.|Doctor X said: two.\n")
    (root / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    (root / "README").write_text("LJ Speech", encoding="utf-8")
    return root


def test_the_published_tree_becomes_manifests(prepare, corpus, tmp_path):
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 0
    sets = {name: read_manifest(tmp_path / f"out/{name}.jsonl") for name in ("train", "dev", "test")}
    assert [one.id for one in sets["dev"]] == ["LJ001-0001"]
    assert [one.id for one in sets["test"]] == ["LJ001-0013"]
    assert len(sets["train"]) == 14
    assert sets["train"][0].text == "doctor x said two"
    assert sets["train"][0].speaker == "lj"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("LJ001-0001|only two", "metadata.csv, line 1: wanted ID|TEXT|TEXT in full words, found 'LJ001-0001|only two'"),
        ("LJ001-0001|?|?", "metadata.csv, line 1: wanted ID|TEXT|TEXT in full words"),
        ("LJ001-0002|a|a", "metadata.csv, line 2: the id LJ001-0002 was there already"),
    ],
)
def test_lines_that_cannot_be_meant(prepare, corpus, tmp_path, capsys, line, complaint):
    path = corpus / "metadata.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([line, *lines[1:]]), encoding="utf-8")
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert complaint in capsys.readouterr().err


def test_a_missing_recording_stops_it(prepare, corpus, tmp_path, capsys):
    (corpus / "wavs/LJ001-0007.wav").unlink()
    assert prepare.main(["--corpus", str(corpus), "--output", str(tmp_path / "out")]) == 1
    assert "1 lines of metadata.csv without a recording: LJ001-0007; the copy is not" in capsys.readouterr().err


def test_from_the_archive_to_results(corpus, mirror, run_recipe, tools):
    address, folder = mirror
    tools.pack(folder / "LJSpeech-1.1.tar.bz2", corpus.parent)
    status, output, said = run_recipe("ljspeech", PREPARE=f"--mirror {address}")
    assert status == 0, said
    assert (output / "RESULTS.md").read_text(encoding="utf-8").count("/ N 4)") == 2
