"""Text -> a synthetic voice (N,): espeak-ng speaks where no recording can be had, for tests and the offline demo.

The wheel espeakng-loader (extra `demo`) ships the library and its languages; the calls are those of its `speak_lib.h`
(https://github.com/espeak-ng/espeak-ng). espeak-ng keeps flutter and noise generators in static memory that nothing
resets, so the same words come out a little different the second time. Here the library is loaded, seeded and unloaded
for every utterance (about 3 ms): the same arguments give the same samples, whatever was spoken before.
"""

import _ctypes
import ctypes
import sys
import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from las.errors import UserError

VOICES = (  # sixteen that differ in accent, sex or timbre; any other language or variant of espeak-ng works too
    "en-us",
    "en-us+f2",
    "en-us+m3",
    "en-us+f5",
    "en-gb+m1",
    "en-gb+f1",
    "en-gb-x-rp+m2",
    "en-gb-x-rp+f4",
    "en-gb-scotland+m4",
    "en-gb-scotland+f3",
    "en-gb-x-gbclan+m5",
    "en-gb-x-gbcwmd+steph",
    "en-029+m6",
    "en-029+f4",
    "en-us-nyc+m7",
    "en-us-nyc+linda",
)
RATES = (80, 450)  # words per minute that espeak-ng accepts
PITCHES = (0, 99)  # its own scale, 50 is the voice's usual pitch

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples come through the callback, no thread is started
DO_NOT_EXIT = 0x8000  # espeak_Initialize returns an error instead of ending the process
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER
UTF8 = 1  # espeakCHARS_UTF8
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)  # samples, count, events

one_at_a_time = threading.Lock()  # the library has one global state


def speak(
    text: str, voice: str = "en-us", rate: int = 175, pitch: int = 50, pitch_range: int = 50
) -> tuple[Tensor, int]:
    """Says `text` in any script; returns samples (N,) float32 in -1..1 and their rate in Hz (22050).

    `voice` is a language of espeak-ng ("en-us", "en-gb-scotland", "ko"), optionally with a variant ("en-us+f3").
    `rate` is in words per minute (80-450), `pitch` and `pitch_range` (0 is a monotone) run from 0 to 99.
    The same arguments give the same samples. Raises UserError when espeakng-loader is not installed, for an unknown
    voice, a value out of range, and a text in which there is nothing to say.
    """
    check("rate", rate, RATES)
    check("pitch", pitch, PITCHES)
    check("pitch_range", pitch_range, PITCHES)
    library_path, data = installed()
    name = espeak_name(voice, data)
    with one_at_a_time:
        library = ctypes.CDLL(str(library_path))
        try:
            samples, hertz = synthesize(library, data, text, name, {RATE: rate, PITCH: pitch, RANGE: pitch_range})
        finally:
            unload(library)
    if not any(samples):  # an empty text comes back as a little silence
        raise UserError(f"voice {voice}: nothing to say in the text {text!r}: it has no letters or digits")
    return torch.frombuffer(samples, dtype=torch.int16).float() / 32768, hertz


def synthesize(
    library: ctypes.CDLL, data: Path, text: str, name: str, parameters: dict[int, int]
) -> tuple[bytearray, int]:
    """16-bit samples as bytes, and their rate in Hz, from a freshly loaded library."""
    samples = bytearray()

    def receive(wave: int | None, count: int, events: int | None) -> int:
        if wave and count:
            samples.extend(ctypes.string_at(wave, 2 * count))
        return 0  # go on

    callback = Callback(receive)  # held here until the last sample has come
    hertz = library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), DO_NOT_EXIT)
    assert hertz > 0, f"espeak_Initialize answered {hertz} for the data in {data}"
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    library.espeak_SetSynthCallback(callback)
    status = library.espeak_SetVoiceByName(name.encode())
    assert status == 0, f"espeak_SetVoiceByName answered {status} for {name}"
    for parameter, value in parameters.items():  # after the voice, which brings its own
        library.espeak_SetParameter(parameter, value, 0)
    encoded = text.encode()
    status = library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, UTF8, None, None)
    assert status == 0, f"espeak_Synth answered {status}"
    library.espeak_Synchronize()
    library.espeak_Terminate()
    return samples, hertz


def unload(library: ctypes.CDLL) -> None:
    """Drops the library with its static memory; ctypes has no public call for it."""
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def check(name: str, value: int, limits: tuple[int, int]) -> None:
    """Raises UserError when `value` is outside `limits`, ends included."""
    if not limits[0] <= value <= limits[1]:
        raise UserError(f"voice {name} {value} is out of range: espeak-ng takes {limits[0]} to {limits[1]}")


def installed() -> tuple[Path, Path]:
    """The library and its data folder, as the wheel espeakng-loader brings them."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "synthetic voices need espeakng-loader, which is not installed: pip install las[demo]"
        ) from None
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


@cache
def languages(data: Path) -> dict[str, str]:
    """Language code, lower case -> name under which espeak-ng knows its voice file ("en-gb" -> "en")."""
    names: dict[str, str] = {}
    for path in sorted((data / "lang").rglob("*")):
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("language"):
                    names.setdefault(line.split()[1].lower(), path.name)
            names[path.name.lower()] = path.name
    return names


def espeak_name(voice: str, data: Path) -> str:
    """`voice` in espeak-ng's spelling; espeak-ng itself takes an unknown variant for none, this raises UserError."""
    language, plus, variant = voice.partition("+")
    known = languages(data)
    if language.lower() not in known:
        raise UserError(f"unknown voice {voice!r}: no language {language!r} among the {len(known)} of espeak-ng")
    if plus and not (data / "voices" / "!v" / variant).is_file():
        raise UserError(f"unknown voice {voice!r}: no variant {variant!r}; there are m1 to m8, f1 to f5 and others")
    return known[language.lower()] + plus + variant
