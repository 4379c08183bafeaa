"""The mini_librispeech recipe: the published tree in, manifests out; nothing missing goes unnoticed."""

import gzip
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.data import download
from las.data.download import unpack
from las.data.manifest import Utterance, read_manifest, write_manifest
from las.errors import UserError

SCRIPT = Path(__file__).parents[2] / "egs/mini_librispeech/prepare.py"
LM_SCRIPT = SCRIPT.with_name("prepare_lm.py")
TREE = {  # subset/speaker/chapter -> texts, ids numbered from 0
    "train-clean-5/1088/134315": ("AS YOU KNOW", "I HAVE GIVEN YOU PROOF"),
    "train-clean-5/19/198": ("NORTHANGER ABBEY",),
    "train-clean-100/26/495": ("THAT'S NOT IT",),
    "dev-clean-2/84/121123": ("GO DO YOU HEAR",),
}
LISTING = "LibriSpeech/train-clean-5/1088/134315/1088-134315.trans.txt"


def load_script(path):
    name = f"egs_mini_librispeech_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


prepare, prepare_lm = load_script(SCRIPT), load_script(LM_SCRIPT)
prepare_voices = load_script(SCRIPT.with_name("prepare_voices.py"))


def write_tree(root, tree, suffix=".flac", seconds=0.5):
    for place, texts in tree.items():
        _, speaker, chapter = place.split("/")
        folder = root / "LibriSpeech" / place
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, text in enumerate(texts):
            id = f"{speaker}-{chapter}-{number:04d}"
            wave = 0.1 * np.sin(0.05 * np.arange(round(16_000 * seconds) + 1_600 * number))
            options = {"format": "OGG", "subtype": "OPUS"} if suffix == ".opus" else {}
            soundfile.write(folder / f"{id}{suffix}", wave, 16_000, **options)
            lines.append(f"{id} {text}\n")
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture(params=[".flac", ".opus"])
def both(request, tmp_path):
    return write_tree(tmp_path / "corpora", TREE, request.param)


@pytest.fixture
def corpora(tmp_path):
    return write_tree(tmp_path / "corpora", TREE)


@pytest.fixture
def run(corpora, tmp_path, capsys):
    """A function from options to (exit status, the one line on stderr)."""

    def call(*options):
        status = prepare.main(["--corpus", str(corpora), "--output", str(tmp_path / "out"), *options])
        return status, capsys.readouterr().err

    return call


def ids(path):
    return [utterance.id for utterance in read_manifest(path)]


def test_the_published_tree_becomes_manifests(both, tmp_path):
    assert prepare.main(["--corpus", str(both), "--output", str(tmp_path / "out")]) == 0
    train = read_manifest(tmp_path / "out/train.jsonl")
    assert [(one.id, one.speaker, one.text, one.seconds) for one in train] == [
        ("1088-134315-0000", "1088", "as you know", 0.5),
        ("1088-134315-0001", "1088", "i have given you proof", 0.6),
        ("19-198-0000", "19", "northanger abbey", 0.5),
        ("26-495-0000", "26", "that's not it", 0.5),
    ]
    assert Path(train[0].audio).parent == both / "LibriSpeech/train-clean-5/1088/134315"
    assert ids(tmp_path / "out/dev.jsonl") == ["84-121123-0000"]
    facts = json.loads((tmp_path / "out/corpus.json").read_text(encoding="utf-8"))
    assert facts == {"train": ["train-clean-5", "train-clean-100"], "valid": "dev-clean-2"}


def test_subsets_are_chosen(corpora, run, tmp_path):
    assert run("--train", "train-clean-5") == (0, "")
    assert ids(tmp_path / "out/train.jsonl") == ["1088-134315-0000", "1088-134315-0001", "19-198-0000"]
    assert run("--train", "train-clean-5", "--valid", "train-clean-100") == (0, "")
    assert ids(tmp_path / "out/dev.jsonl") == ["26-495-0000"]
    write_tree(corpora, {"dev-clean/1272/128104": ("MISTER QUILTER",)})
    assert run() == (0, "")  # dev-clean holds more than dev-clean-2
    assert ids(tmp_path / "out/dev.jsonl") == ["1272-128104-0000"]


def test_glance_is_every_eighth_of_dev(corpora, run, tmp_path):
    write_tree(corpora, {"dev-clean/1272/128104": ("MISTER QUILTER",) * 10})
    assert run() == (0, "")
    assert ids(tmp_path / "out/glance.jsonl") == ["1272-128104-0000", "1272-128104-0008"]


def test_what_two_subsets_hold_is_taken_once(corpora, run, tmp_path):
    write_tree(corpora, {"train-clean-100/19/198": ("NORTHANGER ABBEY", "THIS LITTLE WORK")})
    assert run() == (0, "")
    assert ids(tmp_path / "out/train.jsonl").count("19-198-0000") == 1
    assert len(ids(tmp_path / "out/train.jsonl")) == 5


@pytest.mark.parametrize("below", ["", "LibriSpeech"])
def test_corpus_is_the_folder_or_holds_it(corpora, tmp_path, below):
    assert prepare.main(["--corpus", str(corpora / below), "--output", str(tmp_path / "out")]) == 0


def test_found_in_las_corpora(corpora, tmp_path, monkeypatch):
    monkeypatch.setenv("LAS_CORPORA", str(corpora))
    assert prepare.main(["--output", str(tmp_path / "out")]) == 0
    assert len(ids(tmp_path / "out/train.jsonl")) == 4


def test_else_both_archives_are_downloaded_once(corpora, tmp_path, monkeypatch):
    monkeypatch.delenv("LAS_CORPORA", raising=False)
    calls = []

    def fetch(url, folder):
        calls.append(url)
        folder.mkdir(parents=True, exist_ok=True)
        name = url.rsplit("/", 1)[1]
        with tarfile.open(folder / name, "w:gz") as tar:
            subset = f"LibriSpeech/{name.removesuffix('.tar.gz')}"
            tar.add(corpora / subset, subset)
            readme = tarfile.TarInfo("LibriSpeech/README.TXT")  # both archives hold it
            tar.addfile(readme, io.BytesIO())
        return folder / name

    monkeypatch.setattr(download, "fetch", fetch)
    for _ in range(2):
        assert prepare.main(["--output", str(tmp_path / "out")]) == 0
    addresses = [f"https://www.openslr.org/resources/31/{name}.tar.gz" for name in ("train-clean-5", "dev-clean-2")]
    assert calls == addresses  # the second time they were there
    assert ids(tmp_path / "out/train.jsonl") == ["1088-134315-0000", "1088-134315-0001", "19-198-0000"]
    assert ids(tmp_path / "out/dev.jsonl") == ["84-121123-0000"]


def test_what_is_not_published_there_is_not_downloaded(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LAS_CORPORA", raising=False)
    assert prepare.main(["--output", str(tmp_path), "--train", "train-clean-360"]) == 1
    assert "no subset train-clean-360; there are train-clean-5, dev-clean-2: name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_archive_that_is_no_archive(tmp_path):
    (tmp_path / "archive").write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a whole tar or zip archive"):
        unpack(tmp_path / "archive", tmp_path / "corpus")


def test_a_folder_without_subsets(tmp_path, capsys):
    assert prepare.main(["--corpus", str(tmp_path / "nowhere"), "--output", str(tmp_path)]) == 1
    assert "nowhere: no subsets of LibriSpeech there; wanted train-clean-5/, dev-clean-2/" in capsys.readouterr().err


def test_a_subset_that_is_not_there(run):
    status, said = run("--valid", "dev-other")
    assert status == 1
    assert "no subset dev-other; there are dev-clean-2, train-clean-100, train-clean-5: name some" in said


def test_audio_without_a_line(corpora, run):
    listing = corpora / LISTING
    listing.write_text(listing.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert run()[1].count("1 recordings without a line in .trans.txt: 1088-134315-0001; the copy is not") == 1


def test_a_line_without_audio(corpora, run):
    for path in (corpora / LISTING).parent.glob("*.flac"):
        path.unlink()
    said = run()[1]
    assert "2 lines of .trans.txt without a recording: 1088-134315-0000, 1088-134315-0001; the copy is not" in said


def test_many_are_counted_and_three_are_named(corpora, run):
    write_tree(corpora, {"train-clean-5/32/4137": ("A", "B", "C", "D")})
    for path in (corpora / "LibriSpeech/train-clean-5/32/4137").glob("*.flac"):
        path.unlink()
    assert "4 lines of .trans.txt without a recording: 32-4137-0000, 32-4137-0001, 32-4137-0002, ...;" in run()[1]


def test_a_chapter_without_transcripts(corpora, run):
    (corpora / LISTING).unlink()
    assert "train-clean-5: 1 no such transcripts: 1088/134315/1088-134315.trans.txt; the copy is not" in run()[1]


def test_a_subset_without_chapters(corpora, run):
    shutil.rmtree(corpora / "LibriSpeech/dev-clean-2/84")
    assert "dev-clean-2: no SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt in it" in run()[1]


def test_one_id_for_two_files(corpora, run):
    audio = corpora / "LibriSpeech/train-clean-5/19/198/19-198-0000.flac"
    shutil.copy(audio, audio.with_suffix(".opus"))
    assert "19-198-0000.opus: the id is also that of" in run()[1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"19-198-0000\n", "line 1: '19-198-0000' has no text; wanted `ID TEXT`"),
        (b"\n19-198-0000 A\n19-198-0000 B\n", "line 3: the id 19-198-0000 was there already"),
        (b"19-198-0000 \xff\n", "198.trans.txt: not UTF-8"),
    ],
)
def test_transcripts_that_cannot_be_read(corpora, run, content, complaint):
    (corpora / "LibriSpeech/train-clean-5/19/198/19-198.trans.txt").write_bytes(content)
    status, said = run()
    assert (status, said.count(complaint)) == (1, 1)


def test_a_recording_that_cannot_be_read(corpora, run):
    (corpora / "LibriSpeech/train-clean-5/19/198/19-198-0000.flac").write_bytes(b"")
    status, said = run()
    assert (status, "19-198-0000.flac" in said) == (1, True)


def test_nobody_is_trained_on_and_validated_with(corpora, run, tmp_path):
    write_tree(corpora, {"dev-other/19/227": ("THE OTHER",)})
    status, said = run("--valid", "dev-other")
    assert (status, "training and dev-other share 1 speakers (19); choose" in said) == (1, True)
    assert not (tmp_path / "out/train.jsonl").exists()


def test_from_the_archives_to_results(tmp_path, mirror, run_recipe, tools):
    address, folder = mirror
    for subset, speaker in (("train-clean-5", 19), ("dev-clean-2", 84)):
        write_tree(tmp_path / subset, {f"{subset}/{speaker}/7": ("THIS IS READ",) * 3}, seconds=1.5)
        tools.pack(folder / f"31/{subset}.tar.gz", tmp_path / subset)
    status, output, said = run_recipe("mini_librispeech", PREPARE=f"--train train-clean-5 --mirror {address}")
    assert status == 0, said
    results = (output / "RESULTS.md").read_text(encoding="utf-8")
    assert "| dev-clean-2 | " in results
    assert "/ N 9)" in results
    (output / "data/download/dev-clean-2.tar.gz").write_bytes(b"another archive")
    shutil.rmtree(output / "data/corpus/dev-clean-2")
    status, _, said = run_recipe("mini_librispeech", PREPARE=f"--train train-clean-5 --mirror {address}")
    assert status == 1
    assert "dev-clean-2.tar.gz: 15 bytes found, " in said  # the record of the first download tells


@pytest.mark.slow
@pytest.mark.parametrize("conf", ["smoke", "train"])
def test_run_sh_with_programs_of_its_own(tmp_path, conf):
    """The serious config begins with a model of synthetic voices."""
    corpora = tmp_path / "corpora"
    for place in ("dev-clean/84/7", "train-clean-5/19/7"):
        write_tree(corpora, {place: ("THIS IS READ",) * 3}, seconds=1.5)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "LAS_CORPORA": str(corpora), "PATH": path, "CONF": conf, "PHRASES": "1300"}
    words = ("train.epochs=1", "model.listener.width=8", "model.speller.width=8", "search.beam=1", "search.longest=0.2")
    script = SCRIPT.parent / "run.sh"
    done = subprocess.run([script, tmp_path / "out", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| dev-clean | " in (tmp_path / "out/RESULTS.md").read_text(encoding="utf-8")
    begun = "init: voices/model" in (tmp_path / "out/run/config.yaml").read_text(encoding="utf-8")
    assert begun == (tmp_path / "out/voices/model").exists() == (conf == "train")


# ------------------------------------------------------------------------------------------------------ language models


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("Mr. and Mrs. St. John came. So did Dr. X!", ["mister and missus saint john came", "so did doctor x"]),
        ("“Stop!” he cried. “Why?”", ["stop he cried", "why"]),
        ("Of J. S. Bach she knew _nothing_—or so.", ["of j s bach she knew nothing or so"]),
        ("She read œuvres, Œuvres at a café.", ["she read oeuvres oeuvres at a cafe"]),
        ("* * *", []),
    ],
)
def test_sentences_look_like_transcripts(paragraph, expected):
    assert list(prepare_lm.sentences(paragraph)) == expected


@pytest.fixture
def novel(tmp_path):
    """A function from the paragraphs of a novel to the arguments of the script; dev.jsonl holds one long transcript."""
    dev = [Utterance("1", "none.wav", "it was the best of times it was the worst of times")]
    write_manifest(tmp_path / "dev.jsonl", dev)

    def write(*paragraphs):
        (tmp_path / "novel.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
        return ["--text", str(tmp_path / "novel.txt"), "--output", str(tmp_path)]

    return write


def read_lm(folder):
    with gzip.open(folder / "lm.txt.gz", "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def test_nothing_of_the_validation_set_is_learnt(novel, tmp_path, capsys):
    words = novel("It was a day. In 1842 it rained.", "Ah! “It was the best of times; it was the worst,” he said. So?")
    assert prepare_lm.main(words) == 0
    assert read_lm(tmp_path) == ["it was a day", "ah", "so"]
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}/lm.txt.gz: 3 sentences\n"
    assert "left out 1 sentences, figures or foreign letters (first: 'in 1842 it rained')" in err
    assert "left out 1 sentences, of the validation set (first: 'it was the best of times it was" in err


def test_a_book_of_the_validation_set_is_refused(novel, tmp_path, capsys):
    words = novel(*["It was the best of times, it was the worst of times."] * 21)
    assert prepare_lm.main(words) == 1
    assert "it holds a book of" in capsys.readouterr().err
    assert not (tmp_path / "lm.txt.gz").exists()


def test_no_text_and_transcripts_too_short_to_tell(novel, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LAS_CORPORA", raising=False)
    assert prepare_lm.main(["--output", str(tmp_path)]) == 1
    assert "no text: name one with --text, or set LAS_CORPORA" in capsys.readouterr().err
    write_manifest(tmp_path / "dev.jsonl", [Utterance("1", "none.wav", "too short")])
    assert prepare_lm.main(novel("A text.")) == 1
    write_manifest(tmp_path / "dev.jsonl", [Utterance("1", "none.wav", "too short")])
    assert prepare_lm.main(["--text", str(tmp_path / "novel.txt"), "--output", str(tmp_path)]) == 1
    assert "no transcript of 8 words, so it cannot be told" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------- synthetic voices


def test_phrases_are_neighbouring_words_and_hang_on_the_seed():
    texts = [["a", "b", "c", "d", "e", "f", "g"], ["x"]]
    phrases = list(prepare_voices.draw(texts, 200, seed=1))
    assert phrases == list(prepare_voices.draw(texts, 200, seed=1))
    assert phrases[:5] != list(prepare_voices.draw(texts, 5, seed=2))
    assert {phrase.text for phrase in phrases} >= {"x", "a", "a b c d e", "c d e f g", "g"}
    assert all(phrase.text.replace(" ", "") in "abcdefgx" for phrase in phrases)
    assert {len(phrase.text.split()) for phrase in phrases} == {1, 2, 3, 4, 5}


def test_a_phrase_is_as_loud_as_it_says_and_begins_soon():
    phrase = prepare_voices.Phrase("one", "this is read", "en-us", 170, 50, level=-6.0, noise=-200.0)
    samples = prepare_voices.say(phrase)
    assert abs(np.abs(samples).max() - 10 ** (-6 / 20)) < 1e-3
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    assert loud[0] <= prepare_voices.BEFORE
    assert 0.5 < len(samples) / 16_000 < 2
    assert np.array_equal(samples, prepare_voices.say(phrase))


def test_phrases_are_written_with_their_manifests(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_voices, "VALID", 2)
    said = [Utterance("1", "none.wav", "it was the best of times")]
    write_manifest(tmp_path / "train.jsonl", said)
    assert prepare_voices.main(["--output", str(tmp_path), "--phrases", "6"]) == 0
    train, valid = (read_manifest(tmp_path / "voices" / f"{name}.jsonl") for name in ("train", "valid"))
    assert (len(train), len(valid)) == (4, 2)
    assert all(soundfile.info(one.audio).duration == pytest.approx(one.seconds) for one in train)
    assert prepare_voices.main(["--output", str(tmp_path), "--phrases", "2"]) == 1
    assert "wanted transcripts, and more than 2 phrases of them" in capsys.readouterr().err


def test_sentences_are_said_by_many_voices_and_stand_beside_the_recordings(tmp_path, capsys):
    assert prepare_voices.main(["--output", str(tmp_path), "--sentences", "2"]) == 1
    assert "lm.txt.gz: not there; prepare_lm.py" in capsys.readouterr().err
    long, short = " ".join(["word"] * 31), "too few words"
    soundfile.write(tmp_path / "recorded.wav", np.zeros(1600), 16_000)
    write_manifest(tmp_path / "train.jsonl", [Utterance("1", str(tmp_path / "recorded.wav"), "as it was read", 0.1)])
    with gzip.open(tmp_path / "lm.txt.gz", "wt") as file:
        file.writelines(f"{text}\n" for text in (long, "it was the best of times", short, "we were all going"))
    assert prepare_voices.main(["--output", str(tmp_path), "--sentences", "3"]) == 1
    assert "2 sentences of 4 to 30 words; wanted 3" in capsys.readouterr().err
    assert prepare_voices.main(["--output", str(tmp_path), "--sentences", "2"]) == 0
    train = read_manifest(tmp_path / "mix.jsonl")
    assert train[0].text == "as it was read"
    assert {one.text for one in train[1:]} == {"it was the best of times", "we were all going"}
    assert all(soundfile.info(one.audio).duration == pytest.approx(one.seconds) for one in train)
    texts = [f"this is sentence {number}".split() for number in range(400)]
    drawn = list(prepare_voices.draw_sentences(texts, 400, seed=0))
    assert len({one.voice for one in drawn}) > 200
    assert not [one.voice for one in drawn if "robo" in one.voice.lower() or "whisper" in one.voice]
