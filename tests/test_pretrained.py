"""What ships reads speech, and does not believe what it reads in a language that it was not taught, music and noise."""

import os
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

import las
from las.audio import load
from las.data.librispeech import LibriSpeech
from las.recipe.nonspeech import KINDS, nonspeech
from las.text.alignment import ErrorCounts, align

CORPORA = Path(os.environ.get("LAS_CORPORA", ""))  # of this machine; tests do not see it otherwise
FSDD = CORPORA / "fsdd/recordings"
BEAM = 4  # a quarter of the time of what ships
ENGLISH = (
    "the children went down to the river and looked at the boats",
    "she opened the letter and read it by the window",
    "my father was a good man and he loved the sea",
)
KOREAN = (
    "안녕하세요 오늘 날씨가 참 좋네요",
    "저는 어제 친구와 함께 영화를 보았습니다",
    "서울에서 부산까지 기차로 세 시간 걸립니다",
    "그는 학교에서 한국어를 가르칩니다",
)


@pytest.fixture(scope="module")
def english():
    return las.load("english", device="cpu")


def word_errors(pairs) -> float:
    """Of references and hypotheses together."""
    return sum((align(reference, hypothesis).counts for reference, hypothesis in pairs), ErrorCounts()).rate


def longest_run(text: str) -> int:
    """Most times that a word stands in a row."""
    return max((len(list(words)) for _, words in groupby(text.split())), default=0)


def heard(model, texts, language):
    """What a model makes of texts as two voices of espeak-ng say them."""
    pytest.importorskip("espeakng_loader", reason="pip install las[demo]")
    from las.data.voices import speak

    return model.transcribe(
        [speak(text, f"{language}{of}", rate=150) for text in texts for of in ("", "+f2")], beam=BEAM
    )


def test_english_reads_english(english):
    found = heard(english, ENGLISH, "en-us")
    assert [one.verdict.name for one in found] == ["ok"] * 6
    assert word_errors((ENGLISH[place // 2], one.text) for place, one in enumerate(found)) < 0.35


@pytest.mark.skipif(not (CORPORA / "LibriSpeech").is_dir(), reason="wants $LAS_CORPORA/LibriSpeech")
def test_english_reads_people_whom_it_never_heard(english):
    spoken = [one for one in LibriSpeech(CORPORA, {}, CORPORA).read("dev-clean") if one.seconds < 8][::24]
    found = english.transcribe([one.audio for one in spoken], beam=BEAM)
    assert word_errors((one.text, it.text) for one, it in zip(spoken, found, strict=True)) < 0.6


@pytest.mark.skipif(not FSDD.is_dir(), reason="wants $LAS_CORPORA/fsdd")
def test_digits_reads_digits():
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    orders = [np.random.default_rng(take).integers(10, size=7) for take in range(5)]  # the takes that are the test set
    pause = torch.zeros(1_600)
    waves = [
        torch.cat([part for digit in order for part in (load(FSDD / f"{digit}_theo_{take}.wav", 8_000), pause)])
        for take, order in enumerate(orders)
    ]
    found = las.load("digits", device="cpu").transcribe([(wave, 8_000) for wave in waves])
    assert (
        word_errors((" ".join(names[n] for n in order), it.text) for order, it in zip(orders, found, strict=True)) < 0.1
    )


def test_a_language_that_it_was_not_taught_is_not_believed(english):
    found = heard(english, KOREAN, "ko")
    assert [one.verdict.name for one in found].count("ok") <= 1
    assert max(longest_run(one.text) for one in found) <= 2


def test_music_and_noise_are_not_believed(english):
    chance = np.random.default_rng(0)
    waves = [torch.from_numpy(nonspeech(kind, 6.0, 16_000, chance)) for kind in KINDS for _ in range(2)]
    found = english.transcribe([(wave, 16_000) for wave in waves], beam=BEAM)
    assert "ok" not in [one.verdict.name for one in found]
    assert max(longest_run(one.text) for one in found) <= 4
