"""Synthetic voices: distinct, repeatable, any script; clear errors."""

import builtins
import itertools
import subprocess
import sys

import pytest
import torch

from las.data import voices
from las.data.voices import VOICES, speak
from las.errors import UserError

pytest.importorskip("espeakng_loader", reason="pip install las[demo]")


def spectrum(wave: torch.Tensor) -> torch.Tensor:
    """Mean log magnitude per frequency (513,)."""
    window = torch.hann_window(1024)
    return torch.stft(wave, 1024, 256, window=window, return_complex=True).abs().mean(1).add(1e-3).log()


def test_a_word_is_a_word_long():
    wave, rate = speak("seven")
    assert rate == 22050
    assert wave.dtype == torch.float32
    assert wave.ndim == 1
    assert 0.3 < len(wave) / rate < 1.0
    assert 0.1 < wave.abs().max() <= 1.0


def test_the_table_holds_sixteen_different_voices():
    spectra = {}
    for voice in VOICES:
        wave, rate = speak("three five one zero", voice)
        assert 0.8 < len(wave) / rate < 2.0, voice
        assert wave.abs().max() > 0.1, voice
        spectra[voice] = spectrum(wave)
    assert len(spectra) == len(VOICES) == 16
    for one, other in itertools.combinations(VOICES, 2):
        assert (spectra[one] - spectra[other]).pow(2).mean().sqrt() > 0.2, (one, other)


@pytest.mark.parametrize("voice", ["en-us", "en-gb-scotland+f3", "en-us+whisper", "ko"])
def test_the_same_arguments_give_the_same_samples(voice):
    first, _ = speak("one two three", voice, rate=160, pitch=40)
    speak("something else in between", "en-gb+m1", rate=300, pitch=80)
    second, _ = speak("one two three", voice, rate=160, pitch=40)
    assert torch.equal(first, second)


def test_another_process_says_the_same():
    program = "from las.data.voices import speak; print(speak('nine', 'en-us+f2')[0].double().abs().sum().item())"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(printed) == speak("nine", "en-us+f2")[0].double().abs().sum().item()


def test_rate_and_pitch_are_heard():
    slow, _ = speak("zero one two", rate=100)
    fast, _ = speak("zero one two", rate=250)
    assert len(slow) > 1.5 * len(fast)
    low, high = spectrum(speak("zero", pitch=20)[0]), spectrum(speak("zero", pitch=80)[0])
    assert not torch.allclose(low, high, atol=0.1)


def test_korean_is_spoken():
    wave, rate = speak("안녕하세요 여러분", "ko")
    short, _ = speak("안녕", "ko")
    assert len(wave) / rate > 0.8
    assert len(short) < len(wave)


def test_a_language_code_finds_its_voice_file():
    assert torch.equal(speak("seven", "en-gb")[0], speak("seven", "en")[0])
    assert not torch.equal(speak("seven", "en-gb")[0], speak("seven", "en-us")[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voice": "tlhingan"}, r"unknown voice 'tlhingan': no language 'tlhingan' among the \d+ of espeak-ng"),
        ({"voice": "en-us+m99"}, r"unknown voice 'en-us\+m99': no variant 'm99'"),
        ({"rate": 20}, "voice rate 20 is out of range: espeak-ng takes 80 to 450"),
        ({"pitch": 100}, "voice pitch 100 is out of range: espeak-ng takes 0 to 99"),
        ({"pitch_range": -1}, "voice pitch_range -1 is out of range"),
        ({"text": " "}, "nothing to say in the text ' '"),
        ({"text": ""}, "nothing to say in the text ''"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        speak(**{"text": "one", **arguments})


def test_without_the_wheel_the_extra_is_named(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments):
        if name == "espeakng_loader":
            raise ImportError(name)
        return real_import(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install las\[demo\]"):
        voices.speak("one")
