"""Any recording -> mono float32 waveform (N,) at the asked rate.

libsndfile (soundfile) decodes wav, flac, ogg, opus, mp3 and its other formats; FFmpeg (PyAV, imported when
needed) decodes what libsndfile cannot: m4a, mp4, webm, the sound of a video. The content decides, never the
file name. Channels are averaged. Resampling is a windowed sinc (Smith, Digital Audio Resampling; torchaudio
with the Kaiser window of resampy's "kaiser_best"), in blocks, so that only the result grows with the recording.

Where the clock of an m4a, mp4, mov, webm or mkv runs ahead of its samples (a pause in speech, sound that begins
after the picture), as many zeros are given, so that times are those of the file.

A file that holds less than its header promises is an error. What the formats let us see:

    wav, aiff       the data chunk's size, and sound behind it (files joined, a recorder that was killed); not when
                    a streaming writer left it open (0x7ffff000 and above)
    flac            the sample count of the header; when that is 0 (streamed), only a cut inside a frame
    ogg, opus       a last page that is not whole, and pages dropped in the middle; not a cut exactly between pages
    mp3             fewer samples than its Xing/Info/VBRI header says (two MPEG frames of slack); without that
                    header the file promises nothing, and a cut cannot be seen; nor where files are joined
    m4a, mp4, mov   the stream's duration; or the index (moov) was at the end and is gone with it
    webm, mkv       the track's duration (for sound alone also the file's); browsers often write none: not seen
    sph (SPHERE)    sample_count in its header, where samples have a fixed size
    others          only what the decoder itself reports
"""

import io
import math
import os
import re
import reprlib
import struct
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
import torch
import torchaudio
from torch import Tensor

from las.errors import UserError

Source: TypeAlias = str | Path | bytes | BinaryIO | tuple[Any, float]
Block: TypeAlias = tuple[Tensor, int]  # mono samples (n,) float32, their rate in Hz

LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000  # Hz
ZERO_CROSSINGS, ROLLOFF, KAISER_BETA = 64, 0.9475937167399596, 14.769656459379492
LARGEST_KERNEL = 1 << 21  # numbers; beyond it (44101 -> 16000 Hz) the filter is evaluated sample by sample
READ_FRAMES = 1 << 16  # frames decoded at once
RESAMPLE_SAMPLES = 1 << 16  # samples resampled at once
OPEN_ENDED = 0x7FFFF000  # a chunk size from here on means "until the file ends" (SoX and FFmpeg into a pipe)
UNKNOWN_FRAMES = 1 << 62  # libsndfile's frame count is beyond it where the file does not say
MP3_SLACK = 2 * 1152  # samples; encoder delay and padding that the header may or may not count
DURATION_SLACK = 0.1  # s; codec delay and padding in m4a and webm
PAUSE_SLACK = 0.02  # s that a clock may run ahead of the samples: rounding, jitter
LONGEST_PAUSE = 3600.0  # s; a clock that leaps further is broken, or began before the recording did
OVERSHOOT = 16.0  # largest sample that is clipped; what is beyond is in other units: whole numbers as floats, decibels
SPHERE_CODINGS = (b"pcm", b"ulaw", b"mu-law", b"alaw")  # those in which every sample takes sample_n_bytes
WANTED = "no recording; wanted a path, bytes, a binary file, or (samples, rate)"
NO_SAMPLES = "{}: it has no samples (zero-length audio)"
NOTES = (b"LIST", b"bext", b"cue ", b"smpl", b"iXML", b"id3 ", b"ID3 ", b"junk", b"JUNK", b"_PMX", b"fact", b"PEAK")
SOUNDS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"data", b"SSND", b"fLaC", b"OggS")  # no notes: more sound
# Nothing that opens other files by name (hls, concat, sdp) may be guessed from the content.
CONTAINERS = "mov,matroska,mpegts,mpeg,avi,flv,asf,aac,ac3,eac3,amr,mp3,ogg,wav,flac,caf,aiff,ape,wv,tta,dts"
SUFFIXES = {  # of audio files, where a folder is looked through; what a file is, is seen from what it holds
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".sph", ".voc", ".flac",
    ".ogg", ".oga", ".ogv", ".ogx", ".opus", ".spx", ".mp3", ".mp2", ".mpga", ".aac", ".adts", ".ac3", ".eac3", ".ec3",
    ".dts", ".amr", ".awb", ".ape", ".wv", ".tta", ".m4a", ".m4b", ".m4r", ".m4v", ".mp4", ".mov", ".qt", ".f4v",
    ".3gp", ".3g2", ".webm", ".weba", ".mkv", ".mka", ".avi", ".flv", ".wma", ".wmv", ".asf", ".ts", ".mts", ".m2ts",
    ".mpg", ".mpeg", ".vob",
}  # fmt: skip


def files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and its folders, links to folders followed but none looked into twice."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (path for name in names if (path := Path(place, name)).is_file())


def forms(text: str) -> list[str]:
    """A text as it stands and in NFC and NFD, each once."""
    return list(dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))))


def spelled(path: str) -> str:
    """The path as the disk spells it: as given, or with each part in NFC or NFD where only so it is there.

    macOS decomposes Hangul in file names (NFD), and they stay so where they are copied.
    """
    if path.isascii() or os.path.exists(path):
        return path
    places = [Path()]
    for part in Path(path).parts:
        places = [place / form for place in places for form in forms(part) if os.path.exists(place / form)]
    return str(places[0]) if places else path


@dataclass(frozen=True)
class AudioInfo:
    seconds: float
    rate: int  # Hz
    channels: int


def load(source: Source, rate: int) -> Tensor:
    """Decode a recording -> (N,) float32, mono, `rate` Hz; N = ceil(samples * rate / its own rate).

    source: a path, bytes, a binary file object (read from its start where it can seek), or (array, its rate) with
    an array or tensor (N,) or (channels, N), floats as they are, integers scaled by their full range to [-1, 1).
    Floats beyond 1 are kept. Raises UserError, naming the file: missing, folder, empty, not audio, no samples,
    cut short or with sound behind its end (see the top of this file), NaN or infinite samples, a rate that cannot
    be, a clock that leaps; and for a source that is none of these.

    >>> import torch
    >>> load((torch.zeros(2, 8_000), 8_000), 16_000).shape      # 1 s, stereo
    torch.Size([16000])
    """
    blocks = list(stream(source, rate))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def stream(source: Source, rate: int) -> Iterator[Tensor]:
    """The samples of `load` in blocks of a few seconds, so that a long recording need not fit into memory.

    What `load` raises is raised when it is come to: blocks before damage are handed out.

    >>> import torch
    >>> sum(len(block) for block in stream((torch.zeros(200_000), 8_000), 16_000))
    400000
    """
    _check_rate(rate, "the asked sample rate")
    if isinstance(source, tuple):
        yield from _at_rate(_finite(_array_blocks(source), "<array>"), rate, "<array>")
        return
    with _opened(source) as (file, name):
        yield from _at_rate(_finite(_decoded(file, name), name), rate, name)


def probe(source: Source) -> AudioInfo:
    """Length, rate and channels, from the header where it can be trusted, else by decoding.

    Raises UserError as `load` does for what the header shows; damage further in is only seen by `load`.

    >>> import torch
    >>> probe((torch.zeros(2, 4_000), 8_000))
    AudioInfo(seconds=0.5, rate=8000, channels=2)
    """
    if isinstance(source, tuple):
        samples, rate = _as_channels(source)
        return AudioInfo(samples.shape[1] / rate, rate, samples.shape[0])
    with _opened(source) as (file, name):
        info = _header(file, name)
        if info.seconds > 0:
            return info
        file.seek(0)
        seconds, decoded_rate = 0.0, info.rate
        for block, rate in _decoded(file, name):
            seconds, decoded_rate = seconds + len(block) / rate, rate
        if seconds == 0:
            raise UserError(NO_SAMPLES.format(name))
        return AudioInfo(seconds, decoded_rate, info.channels)


def write_flac(samples: Tensor, rate: int) -> bytes:
    """(N,) float -> 16-bit FLAC file in memory; clipped to [-1, 1), rounded to the nearest of 65536 steps.

    Samples that came from 16-bit audio survive exactly. Raises UserError: no samples, NaN or infinite samples,
    samples beyond OVERSHOOT, a rate that cannot be (some above 65,535 Hz).
    """
    _check_rate(rate, "the sample rate to write")
    assert samples.dim() == 1, f"mono (N,) wanted, got {tuple(samples.shape)}"
    if len(samples) == 0:
        raise UserError("nothing to write: the audio has no samples")
    if not bool(torch.isfinite(samples).all()):
        raise UserError("nothing written: the audio has NaN or infinite samples")
    if (peak := float(samples.abs().max())) > OVERSHOOT:
        raise UserError(f"nothing written: a sample of {peak:g}; wanted sound, about -1 to 1: divide by its full scale")
    steps = (samples.detach().cpu().double() * 32768).round().clamp(-32768, 32767).to(torch.int16)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, steps.numpy(), rate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError:
        raise UserError(f"FLAC cannot hold {rate} Hz; name another rate, or keep the file as it is") from None
    return buffer.getvalue()


def _check_rate(rate: int, what: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise UserError(f"{what} is {rate} Hz; wanted {LOWEST_RATE} to {HIGHEST_RATE} Hz")


# --- where the bytes come from


@contextmanager
def _opened(source: Any) -> Iterator[tuple[BinaryIO, str]]:
    """A seekable binary file at its start, and the name that errors use."""
    file: Any
    if isinstance(source, bytes | bytearray | memoryview):
        name, file = "<bytes>", io.BytesIO(source)
    elif isinstance(source, str | Path):
        name, file = str(source), _open_path(source)
    elif not hasattr(source, "read") or isinstance(source, io.TextIOBase):
        raise UserError(f"{reprlib.repr(source)}: {WANTED}")
    else:
        name, file = str(getattr(source, "name", "<file object>")), source
    try:
        if not file.seekable():
            file = io.BytesIO(file.read())
        if file.seek(0, os.SEEK_END) == 0:
            raise UserError(f"{name}: the file is empty (0 bytes); wanted audio")
        file.seek(0)
        yield file, name
    finally:
        if file is not source:
            file.close()


def _open_path(path: str | Path) -> Any:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: this is a folder; wanted an audio file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise UserError(f"{path}: cannot be opened: {error}") from None


# --- decoding: each gives mono blocks and their rate


def _decoded(file: BinaryIO, name: str) -> Iterator[Block]:
    sound = _libsndfile(file, name)
    return _libsndfile_blocks(sound, name) if sound is not None else _ffmpeg_blocks(file, name)


def _header(file: BinaryIO, name: str) -> AudioInfo:
    """Seconds are NaN where only decoding can tell."""
    sound = _libsndfile(file, name)
    if sound is None:
        return _ffmpeg_header(file, name)
    with sound:
        _check_rate(sound.samplerate, f"{name}: the rate in its header")
        known = sound.frames < UNKNOWN_FRAMES
        return AudioInfo(sound.frames / sound.samplerate if known else math.nan, sound.samplerate, sound.channels)


def _libsndfile(file: BinaryIO, name: str) -> "_StraightOn | None":
    """The file as libsndfile reads it, None where FFmpeg must; raises what the bytes show before any decoding."""
    _check_chunks(file, name)
    _check_sphere(file, name)
    pages_end, chained = _ogg_pages(file)
    if chained:  # libsndfile stops where the first stream ends
        file.seek(0)
        return None
    file.seek(0)
    try:
        sound = _StraightOn(file)
    except soundfile.LibsndfileError:
        if pages_end:
            raise UserError(f"{name}: cut short: the file ends inside its Ogg headers; copy it again") from None
        file.seek(0)
        return None
    if pages_end:
        with sound:
            seconds = sound.frames / sound.samplerate
        raise UserError(
            f"{name}: cut short: the file ends inside an Ogg page after {seconds:.3f} s of an unknown whole; "
            "copy it again, or re-encode what is left"
        )
    if sound.format == "MP3":
        place = file.tell()
        if not _mp3_has_length(file):  # libsndfile then drops the rest
            sound.close()
            return None
        file.seek(place)
    return sound


class _Places:
    """A file whose seek never raises: in damaged files libsndfile asks for places before the start, in a callback."""

    def __init__(self, file: BinaryIO):
        self.file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return self.file.tell()


class _StraightOn(soundfile.SoundFile):
    """Read from start to end: soundfile seeks after every read, which a FLAC of unknown length cannot."""

    def __init__(self, file: BinaryIO):
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 128))
        self.tagged = file.read(3) == b"TAG"  # ID3v1: to read on into it is an error to the FLAC decoder
        file.seek(0)
        super().__init__(_Places(file))

    def seekable(self) -> bool:
        return False


def _libsndfile_blocks(sound: _StraightOn, name: str) -> Iterator[Block]:
    with sound:
        rate, total, seen = sound.samplerate, sound.frames, 0
        _check_rate(rate, f"{name}: the rate in its header")
        known = total < UNKNOWN_FRAMES
        slack = MP3_SLACK if sound.format == "MP3" else 0
        damage = ""
        while True:
            try:
                left = total - seen - (not sound.tagged)  # the last alone: a FLAC decoder stumbles over what is behind
                ask = min(READ_FRAMES, left) if known and (left > 0 or sound.tagged) else READ_FRAMES
                frames = sound.read(ask, dtype="float32", always_2d=True)  # (n, channels)
            except soundfile.LibsndfileError as error:
                damage = f" ({error})" if str(error) else " (the decoder stopped at damaged data)"
                break
            if len(frames) == 0:
                break
            seen += len(frames)
            yield _mono(torch.from_numpy(frames)), rate
        if damage and known and seen >= total - 1:
            raise UserError(
                f"{name}: the {total / rate:.3f} s of its header can be read, but not what lies behind them{damage}: "
                "files joined end to end? split it there"
            )
        if damage or (known and seen < total - slack):
            whole = f"{total / rate:.3f} s" if known else "an unknown length"
            raise UserError(
                f"{name}: cut short or damaged: about {seen / rate:.3f} s of {whole} can be read{damage}; copy it again"
            )


def _check_chunks(file: BinaryIO, name: str) -> None:
    """RIFF, RF64 and AIFF: compare the size of the data chunk with the bytes that are there.

    libsndfile silently takes what is there, and drops what lies behind. Multimedia Programming Interface 1.0 (RIFF);
    EBU Tech 3306 (RF64).
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    known = {b"RIFF": "<", b"RF64": "<", b"RIFX": ">", b"FORM": ">"}
    if len(head) < 12 or head[:4] not in known or head[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
        return
    order, position, bytes_per_second, long_data = known[head[:4]], 12, 0.0, None
    while position + 8 <= size:
        file.seek(position)
        tag, length = struct.unpack(order + "4sI", file.read(8))
        body = file.read(min(length, 28))
        if tag == b"ds64" and len(body) >= 16:
            long_data = struct.unpack("<Q", body[8:16])[0]
        elif tag == b"fmt " and len(body) >= 12:
            bytes_per_second = float(struct.unpack(order + "I", body[8:12])[0])
        elif tag == b"COMM" and len(body) >= 18:
            channels, _, bits = struct.unpack(">HIH", body[:8])
            exponent, mantissa = struct.unpack(">HQ", body[8:18])  # 80-bit float, always positive
            aiff_rate = mantissa * 2.0 ** min(0, (exponent & 0x7FFF) - 16383 - 63)
            bytes_per_second = channels * ((bits + 7) // 8) * aiff_rate
        elif tag in (b"data", b"SSND"):
            if tag == b"data" and length == 0xFFFFFFFF and long_data:
                length = long_data
            elif length >= OPEN_ENDED:
                return
            found, per = size - position - 8, bytes_per_second or math.nan
            if found < length:
                raise UserError(
                    f"{name}: cut short: {found / per:.3f} s of {length / per:.3f} s are there "
                    f"({found} of {length} bytes of sound); copy it again"
                )
            more = _sound_behind(file, position + 8 + length, order, bytes_per_second * DURATION_SLACK)
            if more and not (length == 0 and _has_frames(file)):
                raise UserError(
                    f"{name}: its header says {length / per:.3f} s of sound, but {found - length} bytes lie behind it: "
                    "files joined end to end, or a recorder that was stopped; split it there, or write it anew "
                    "(a WAV: ffmpeg -ignore_length 1 -i OLD NEW)"
                )
            return
        position += 8 + length + length % 2


def _sound_behind(file: BinaryIO, position: int, order: str, slack: float) -> bool:
    """Whether more than notes lies from `position`, behind a data chunk, to the end of the file.

    Notes are chunks of any name but those of sound (that begin a byte late where padding is wrong), zeros and tags;
    what is none of these but shorter than `slack` bytes passes too.
    """
    size = file.seek(0, os.SEEK_END)
    while True:
        position = _first_not_zero(file, position)
        file.seek(position)
        head = file.read(9)
        if len(head) < 9:
            return False
        for late in (0, 1):
            tag, length = struct.unpack(order + "4sI", head[late : late + 8])
            end = position + late + 8 + length
            if tag in SOUNDS:
                return True
            if tag in NOTES or (re.fullmatch(rb"[ -~]{4}", tag) and end <= size):
                position = end
                break
        else:
            return not head.startswith((b"TAG", b"ID3", b"APETAGEX")) and size - position >= slack


def _first_not_zero(file: BinaryIO, position: int) -> int:
    file.seek(position)
    while block := file.read(1 << 16):
        if rest := block.lstrip(b"\0"):
            return position + len(block) - len(rest)
        position += len(block)
    return position


def _has_frames(file: BinaryIO) -> bool:
    """Whether libsndfile reads on to the end where a header of RIFF says that there is nothing."""
    file.seek(0)
    with suppress(soundfile.LibsndfileError), _StraightOn(file) as sound:
        return sound.frames > 0
    return False


def _check_sphere(file: BinaryIO, name: str) -> None:
    """NIST SPHERE: compare the header's number of samples with the bytes that are there; libsndfile does not.

    The header is text: NIST_1A, its own size, then lines `NAME -TYPE VALUE` (NIST SPHERE 2.6, header.doc).
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    if head[:8] != b"NIST_1A\n" or not head[8:].strip().isdigit():
        return
    start = int(head[8:])
    fields = (line.split() for line in file.read(max(0, min(start, 1 << 16) - 16)).split(b"\n"))
    values = {words[0]: words[2] for words in fields if len(words) == 3}
    numbers = [values.get(key, b"") for key in (b"sample_count", b"sample_n_bytes", b"channel_count", b"sample_rate")]
    if not all(number.isdigit() for number in numbers) or values.get(b"sample_coding", b"pcm") not in SPHERE_CODINGS:
        return
    count, width, channels, rate = map(int, numbers)
    if size - start < count * width * channels and rate:
        found = max(0, size - start) / (width * channels * rate)
        raise UserError(f"{name}: cut short: {found:.3f} s of {count / rate:.3f} s are there; copy it again")


def _ogg_pages(file: BinaryIO) -> tuple[bool, bool]:
    """Whether an Ogg file ends inside a page, and whether a stream begins after another (RFC 3533: 27 bytes, a table
    of lengths, the body)."""
    size = file.seek(0, os.SEEK_END)
    position, data, chained = 0, False, False
    while position < size:
        file.seek(position)
        head = file.read(27 + 255)
        if head[:4] != b"OggS"[: len(head)]:
            return False, chained  # not Ogg, or damaged within, which decoding shows
        if len(head) < 27 or len(head) < 27 + head[26]:
            return True, chained
        chained = chained or (data and bool(head[5] & 2))
        data = data or not head[5] & 2
        position += 27 + head[26] + sum(head[27 : 27 + head[26]])
    return position > size, chained


def _mp3_has_length(file: BinaryIO) -> bool:
    """Whether the first MPEG frame carries a Xing, Info or VBRI header; an ID3v2 tag before it is passed over."""
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3" and len(head) == 10:
        first = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    else:
        first = 0
    file.seek(first)
    frame = file.read(4096)
    file.seek(0)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0:
        return b"VBRI" in frame
    flags, _, length = struct.unpack(">III", frame[place + 4 : place + 16].ljust(12, b"\0"))
    if flags & 3 == 3:  # frames and bytes: more sound behind them is another file's, which libsndfile drops
        file.seek(first + length)
        after = file.read(3)
        file.seek(0)
        return not (after == b"ID3" or (len(after) == 3 and after[0] == 0xFF and after[1] & 0xE0 == 0xE0))
    return True


@contextmanager
def _ffmpeg_opened(file: BinaryIO, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first audio stream."""
    try:
        import av
    except ImportError:
        raise UserError(
            f"{name}: not wav, flac, ogg, opus or mp3 with a length, and PyAV, which reads m4a, webm and the rest, "
            "is not installed: pip install av"
        ) from None
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
    head = file.read(12)
    file.seek(0)
    try:
        container = av.open(file, metadata_errors="replace", options=options)
    except (av.FFmpegError, OSError) as error:
        if head[4:8] == b"ftyp":
            raise UserError(f"{name}: cut short: an m4a or mp4 without its index (moov); copy it again") from None
        raise UserError(f"{name}: not audio that can be read ({error.__class__.__name__})") from None
    with container:
        if not container.streams.audio:
            raise UserError(f"{name}: it has no audio track")
        if container.streams.audio[0].codec_context is None:
            raise UserError(f"{name}: its audio track is of a kind that FFmpeg cannot decode")
        try:
            yield container, container.streams.audio[0]
        except av.FFmpegError as error:
            raise UserError(f"{name}: cut short or damaged: {error.strerror}; copy it again") from None


def _ffmpeg_header(file: BinaryIO, name: str) -> AudioInfo:
    with _ffmpeg_opened(file, name) as (container, stream):
        rate, channels = stream.codec_context.rate, stream.codec_context.channels
        _check_rate(rate, f"{name}: the rate in its header")
        promised = _promised_seconds(container, stream)
        return AudioInfo(math.nan if promised is None else promised, rate, channels)


def _has_clock(container: Any) -> bool:
    """Whether times count from where the recording begins, as in m4a and webm; elsewhere they begin anywhere."""
    return container.format.name.split(",")[0] in ("mov", "matroska")


def _begin(stream: Any) -> tuple[float, float]:
    """Time 0 of the recording on the stream's clock, and how late its sound begins; both in s.

    A codec's priming makes no sound late, nor does a clock that ran for hours before (part of a live stream).
    """
    start = float((stream.start_time or 0) * stream.time_base)
    return (0.0, start) if DURATION_SLACK < start <= LONGEST_PAUSE else (start, 0.0)


def _promised_seconds(container: Any, stream: Any) -> float | None:
    """What the header says of this stream; None where it says nothing that can be trusted."""
    if not _has_clock(container):
        return None
    zero, late = _begin(stream)
    if stream.duration and container.format.name.startswith("mov"):
        return float(stream.duration * stream.time_base) + late
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")  # Matroska tag: 00:00:01.341000000
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - zero
    except ValueError:  # in Matroska a duration of the stream itself is FFmpeg's guess, and the file's is then too
        alone = len(container.streams) == 1 and not stream.duration and container.duration
        return container.duration / 1e6 - zero if alone else None


def _ffmpeg_blocks(file: BinaryIO, name: str) -> Iterator[Block]:
    with _ffmpeg_opened(file, name) as (container, stream):
        import av  # there, or the line above would have said so

        promised, (zero, late), clock = _promised_seconds(container, stream), _begin(stream), _has_clock(container)
        latest = math.inf if promised is None else promised + late + DURATION_SLACK
        rate, seen, end, slack, kind_before = 0, 0, 0.0, PAUSE_SLACK, None
        for frame in container.decode(stream):
            if rate and frame.sample_rate != rate:
                raise UserError(f"{name}: its rate changes from {rate} to {frame.sample_rate} Hz; split it there")
            rate = frame.sample_rate
            _check_rate(rate, f"{name}: the rate in its header")
            time = frame.time - zero if clock and frame.time is not None else 0.0
            ahead = time - seen / rate
            if seen == 0 and 0 < ahead <= DURATION_SLACK:  # the codec's priming, taken off the samples alone
                slack += ahead
            if ahead > slack:
                if ahead > LONGEST_PAUSE or time > latest:
                    raise UserError(
                        f"{name}: its clock leaps from {seen / rate:.3f} s to {time:.3f} s, which is no pause; "
                        "write it anew, for example by `ffmpeg -i OLD NEW.wav`"
                    )
                yield from ((zeros, rate) for zeros in _zeros(round(ahead * rate)))
                seen += round(ahead * rate)
            kind = (frame.format.name, frame.layout.name)
            if kind != kind_before:  # interleaved floats, because PyAV miscounts the planes of 8 and more channels
                convert, kind_before = av.AudioResampler(format="flt"), kind
            seen += frame.samples
            end = max(seen / rate, time + frame.samples / rate)
            for piece in convert.resample(frame):
                yield _mono(torch.from_numpy(piece.to_ndarray().reshape(-1, piece.layout.nb_channels))), rate
        if promised is not None and end < promised - DURATION_SLACK:
            raise UserError(f"{name}: cut short: {end:.3f} s of {promised:.3f} s are there; copy it again")


def _zeros(count: int) -> Iterator[Tensor]:
    for start in range(0, count, READ_FRAMES):
        yield torch.zeros(min(READ_FRAMES, count - start))


def _mono(frames: Tensor) -> Tensor:
    """(n, channels) -> their mean (n,)."""
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(dim=1)


def _array_blocks(source: tuple[Any, ...]) -> Iterator[Block]:
    samples, rate = _as_channels(source)
    for start in range(0, samples.shape[1], RESAMPLE_SAMPLES):
        yield _to_float(samples[:, start : start + RESAMPLE_SAMPLES]).mean(dim=0), rate


def _as_channels(source: tuple[Any, ...]) -> tuple[np.ndarray, int]:
    """(channels, N) and its rate in Hz, which may come as a float or NumPy's."""
    if len(source) != 2:
        raise UserError(f"{reprlib.repr(source)}: {WANTED}")
    array, rate = source
    if not isinstance(rate, int | float | np.integer | np.floating) or rate != rate // 1:
        raise UserError(f"<array>: its sample rate is {rate!r}; wanted a whole number of Hz")
    rate = int(rate)
    _check_rate(rate, "<array>: its sample rate")
    samples = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or samples.dtype.kind not in "iuf":
        raise UserError(f"<array>: numbers (N,) or (channels, N) wanted, got {samples.dtype} {samples.shape}")
    if samples.shape[0] > 64 and samples.shape[0] > samples.shape[1]:
        raise UserError(f"<array>: {samples.shape} looks like (N, channels); wanted (channels, N): transpose it")
    if samples.size == 0:
        raise UserError(NO_SAMPLES.format("<array>"))
    return samples, rate


def _to_float(samples: np.ndarray) -> Tensor:
    """Integers of any width to [-1, 1) by their full range; floats as they are; float32."""
    if samples.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    shift = half if samples.dtype.kind == "u" else 0.0
    return torch.from_numpy(((samples - shift) / half).astype(np.float32))


# --- from blocks to the asked rate


def _finite(blocks: Iterator[Block], name: str) -> Iterator[Block]:
    seen = 0
    for block, rate in blocks:
        if not math.isfinite(block.sum()):  # one pass; where it is not finite, some sample may not be either
            bad = (~torch.isfinite(block)).nonzero()
            if len(bad):
                first = seen + int(bad[0, 0])
                raise UserError(f"{name}: NaN or infinite sample at {first / rate:.3f} s; wanted finite numbers")
        seen += len(block)
        yield block, rate


def _at_rate(blocks: Iterator[Block], rate: int, name: str) -> Iterator[Tensor]:
    first = next(blocks, None)
    if first is None:
        raise UserError(NO_SAMPLES.format(name))

    def samples() -> Iterator[Tensor]:
        yield first[0]
        for block, _ in blocks:
            yield block

    yield from _resampled(samples(), first[1], rate)


def _resampled(blocks: Iterator[Tensor], source_rate: int, rate: int) -> Iterator[Tensor]:
    """Resample a stream; the same numbers as one call over the whole, whatever the blocks."""
    if source_rate == rate:
        yield from blocks
        return
    divisor = math.gcd(source_rate, rate)
    old, new = source_rate // divisor, rate // divisor
    reach = math.ceil(ZERO_CROSSINGS * old / (min(old, new) * ROLLOFF))  # input samples on either side
    margin = -(-reach // old) * old
    step = max(1, RESAMPLE_SAMPLES // old) * old
    kernel = new * (2 * reach + old)
    convert = _torchaudio_filter(old, new) if kernel <= LARGEST_KERNEL else _direct_filter(old, new, reach)
    waiting, count = [torch.zeros(margin)], margin
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= margin + step + margin:
            held = torch.cat(waiting)
            while len(held) >= margin + step + margin:
                piece = held[: margin + step + margin]
                yield convert(piece, margin // old * new, step // old * new)
                held = held[step:]
            waiting, count = [held.clone()], len(held)  # the clone lets go of the rest
    last = -(-(count - margin) * new // old)
    yield convert(torch.cat([*waiting, torch.zeros(margin)]), margin // old * new, last)


Filter: TypeAlias = Callable[[Tensor, int, int], Tensor]  # samples, first output, number of outputs -> outputs


@lru_cache(maxsize=32)
def _torchaudio_filter(old: int, new: int) -> Filter:
    resample = torchaudio.transforms.Resample(
        old, new, "sinc_interp_kaiser", lowpass_filter_width=ZERO_CROSSINGS, rolloff=ROLLOFF, beta=KAISER_BETA
    )

    def convert(samples: Tensor, first: int, count: int) -> Tensor:
        return resample(samples)[first : first + count].clone()

    return convert


def _direct_filter(old: int, new: int, reach: int) -> Filter:
    """The same filter, evaluated for each output sample: for rates whose common divisor is too small for a table."""
    taps = torch.arange(-reach, reach + 1)
    cutoff = min(old, new) * ROLLOFF / old  # of the input's Nyquist frequency
    beta = torch.tensor(KAISER_BETA, dtype=torch.float64)

    def convert(samples: Tensor, first: int, count: int) -> Tensor:
        padded = torch.nn.functional.pad(samples, (reach, reach + 1))
        pieces = []
        for start in range(first, first + count, 4096):
            output = torch.arange(start, min(start + 4096, first + count))
            nearest, left = output * old // new, output * old % new  # time = nearest + left / new, exactly
            distance = (taps[None, :] - (left.double() / new)[:, None]) * cutoff  # (n, taps)
            distance = distance.clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
            window = torch.special.i0(beta * (1 - (distance / ZERO_CROSSINGS) ** 2).sqrt()) / torch.special.i0(beta)
            weights = (torch.sinc(distance) * window * cutoff).float()
            pieces.append((padded[nearest[:, None] + taps + reach] * weights).sum(dim=1))
        return torch.cat(pieces) if pieces else samples[:0]

    return convert
