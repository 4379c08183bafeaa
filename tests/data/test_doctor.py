"""What `las doctor data` finds, each oddity made on purpose in a set of tones that are otherwise alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from las.data.doctor import examine, render, to_json
from las.data.manifest import Utterance, write_manifest
from las.data.sharding import write_shards
from las.text.tokenizer import train_tokenizer

RATE = 8000


def tone(number, seconds=1.0, rate=RATE):
    """A tone with something of all frequencies in it, other samples for every number."""
    generator = np.random.default_rng(number)
    place = np.arange(round(seconds * rate)) / rate
    hum = 0.3 * np.sin(2 * np.pi * 300 * place) + 0.02 * generator.standard_normal(len(place))
    return hum.astype(np.float32)


@pytest.fixture
def corpus(tmp_path):
    """Writes a manifest of ten alike utterances and of what a test adds: id -> samples, text, speaker, rate."""

    def write(odd=None, name="train", usual=10):
        rows = {
            f"{name}-{number}": (tone(len(name) * 1000 + number), f"word{number}", "ada", RATE)
            for number in range(usual)
        }
        utterances = []
        for id, (samples, text, speaker, rate) in {**rows, **(odd or {})}.items():
            soundfile.write(tmp_path / f"{id}.wav", samples, rate, subtype="FLOAT")
            utterances.append(Utterance(id, str(tmp_path / f"{id}.wav"), text, None, speaker))
        write_manifest(tmp_path / f"{name}.jsonl", utterances)
        return tmp_path / f"{name}.jsonl"

    return write


def found(report):
    return {cause: [case["id"] for case in cases] for cause, cases in report["findings"].items()}


def test_a_set_without_oddities(corpus):
    report = examine({"train": corpus()})
    assert report["findings"] == {}
    assert render(report).endswith("nothing odd was found")
    assert report["sets"]["train"]["utterances"] == 10
    assert report["sets"]["train"]["rates"] == "8000 Hz x 10"


@pytest.mark.parametrize(
    ("cause", "samples"),
    [
        ("clipped", np.sign(tone(90))),
        ("direct current", tone(90) + 0.05),
        ("nothing to hear", tone(90) * 1e-4),
        ("mostly silence", np.concatenate([tone(90, 0.15), np.zeros(RATE * 85 // 100, np.float32)])),
        ("odd duration", tone(90, 4.0)),
    ],
)
def test_a_recording_that_is_odd(corpus, cause, samples):
    text = "word" * (4 if cause == "odd duration" else 1)
    assert found(examine({"train": corpus({"odd": (samples, text, "ada", RATE)})})) == {cause: ["odd"]}


def test_a_recording_of_another_rate_and_one_that_was_recorded_lower(corpus):
    other = tone(90, rate=16_000)
    assert found(examine({"train": corpus({"odd": (other, "text1", "ada", 16_000)})})) == {"another rate": ["odd"]}
    spectrum = np.fft.rfft(tone(91))
    spectrum[len(spectrum) // 2 :] = 0
    low = np.fft.irfft(spectrum).astype(np.float32)
    assert found(examine({"train": corpus({"low": (low, "text1", "ada", RATE)})})) == {
        "recorded at a lower rate": ["low"]
    }


def test_a_file_that_cannot_be_read_is_named_and_the_rest_examined(corpus, tmp_path):
    manifest = corpus()
    (tmp_path / "train-3.wav").write_bytes(b"no audio")
    (tmp_path / "train-4.wav").unlink()
    report = examine({"train": manifest}, workers=3)
    assert found(report) == {"cannot be read": ["train-3", "train-4"]}
    assert report["sets"]["train"]["utterances"] == 10


def test_texts(corpus, tmp_path):
    odd = {
        "empty": (tone(90), "", "ada", RATE),
        "long": (tone(91), "word" * 30, "ada", RATE),
        "again": (tone(92), "word3", "ada", RATE),
        "한국": (tone(93), "한국어", "ada", RATE),
        "unseen": (tone(94), "wo\u00adrd 9", "ada", RATE),
    }
    tokenizer = train_tokenizer(["word0123456789"] * 5, 20, "char", tmp_path / "tokens.model")
    report = examine({"train": corpus(odd)}, tokenizer)
    assert found(report) == {
        "empty text": ["empty"],
        "odd speaking rate": ["long"],
        "repeated text": ["train-3"],
        "characters the tokenizer cannot write": ["한국", "unseen"],
        "characters nobody sees": ["unseen"],
    }
    assert "한국어" in render(report)
    assert "U+00AD" in render(report)
    assert "한국" in to_json(report)
    assert json.loads(to_json(report)) == report


def test_rare_characters_are_told_of_where_there_is_much_text(corpus):
    odd = {f"long-{number}": (tone(100 + number), "abcde " * 500 + str(number), "ada", RATE) for number in range(4)}
    odd["typo"] = (tone(90), "abcdë", "ada", RATE)
    assert "typo" in found(examine({"train": corpus(odd, usual=0)}))["rare characters"]


def test_what_two_sets_share(corpus):
    train = corpus({"same": (tone(95), "one", "eve", RATE), "both": (tone(96), "two", "bob", RATE)})
    test = corpus({"other": (tone(95), "won", "eve", RATE)}, "test", usual=3)
    report = examine({"train": train, "test": test})
    assert found(report) == {
        "speaker in several sets": ["train-0", "same"],
        "the same recording twice": ["other"],
    }
    assert report["findings"]["the same recording twice"][0]["detail"] == "as train same, another text: 'won', 'one'"
    assert report["findings"]["speaker in several sets"][0]["detail"] == "ada: train, test"


def test_shards_are_read_like_their_manifest(corpus, tmp_path):
    from las.data.manifest import read_manifest

    manifest = corpus({"odd": (np.clip(tone(90) * 9, -1, 1), "word", "ada", RATE)})
    index = write_shards(read_manifest(manifest), tmp_path / "shards", encode="original")
    assert found(examine({"train": Path(index.root)})) == found(examine({"train": manifest})) == {"clipped": ["odd"]}
    shard = Path(index.place(0))
    data = bytearray(shard.read_bytes())
    entry = index.entries[0]
    data[entry.offset + entry.size // 2] ^= 1
    shard.write_bytes(data)
    assert found(examine({"train": Path(index.root)}))["cannot be read"] == [entry.id]


def test_progress_counts_every_recording(corpus):
    calls = []
    examine({"train": corpus()}, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 10) for done in range(1, 11)]


def test_an_id_that_would_break_the_line_is_quoted():
    case = {"set": "a", "id": "1\n\u202e", "detail": ""}
    assert (
        render({"sets": {}, "findings": {"empty text": [case]}})
        == r"""
empty text: 1 (a '1\n\u202e')"""
    )
