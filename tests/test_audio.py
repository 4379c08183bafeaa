"""A 440 Hz tone must come back as 440 Hz whatever it was wrapped in; what is broken must be named."""

import io
import math
import struct
import subprocess
import sys
import textwrap
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from las import audio
from las.audio import SUFFIXES, AudioInfo, files_below, load, probe, spelled, write_flac
from las.errors import UserError

LIBSNDFILE = {
    "wav-8": ("WAV", "PCM_U8"),
    "wav-16": ("WAV", "PCM_16"),
    "wav-24": ("WAV", "PCM_24"),
    "wav-32": ("WAV", "PCM_32"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-double": ("WAV", "DOUBLE"),
    "wav-mulaw": ("WAV", "ULAW"),
    "wavex": ("WAVEX", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "aifc": ("AIFF", "ULAW"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
    "sph-mulaw": ("NIST", "ULAW"),
    "flac-16": ("FLAC", "PCM_16"),
    "flac-24": ("FLAC", "PCM_24"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
FFMPEG = {
    "m4a": ("mp4", "aac", 44_100),
    "mov": ("mov", "alac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "libopus", 48_000),
    "aac": ("adts", "aac", 44_100),
    "3gp": ("3gp", "aac", 44_100),
    "avi": ("avi", "aac", 44_100),
    "flv": ("flv", "aac", 44_100),
    "ts": ("mpegts", "aac", 44_100),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tone(rate: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    """(N, channels), 440 Hz, amplitude .5"""
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(kind: str, samples: np.ndarray, rate: int) -> bytes:
    container, subtype = LIBSNDFILE[kind]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def muxed(
    path: Path,
    kind: str,
    samples: np.ndarray,
    picture: bool = False,
    pauses: tuple[tuple[float, float], ...] = (),
    **options: str,
) -> bytes:
    """By PyAV, at the rate of FFMPEG; with `picture`, a track of video of 3 s beside the sound. `pauses`: from how many
    seconds of sound on the clock is ahead by how many more."""
    av = pytest.importorskip("av")
    container, codec, rate = FFMPEG[kind]
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no {codec} encoder")
    with av.open(str(path), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[samples.shape[1]]
        wanted = {"aac": "flt", "libopus": "flt", "alac": "s16p"}[codec]
        size = 4096 if codec == "alac" else 1024
        if picture:
            video = output.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for number in range(30):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                image.pts = number
                output.mux(video.encode(image))
            output.mux(video.encode(None))
        for start in range(0, len(samples), size):
            piece = samples[start : start + size].T
            piece = (piece * 32767).astype(np.int16) if wanted == "s16p" else piece
            piece = piece if wanted.endswith("p") else piece.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), wanted, stream.layout.name)
            ahead = sum(seconds for first, seconds in pauses if start >= first * rate)
            frame.sample_rate, frame.pts, frame.time_base = rate, start + round(ahead * rate), Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


def assert_tone(wave: torch.Tensor, rate: int, seconds: float = 1.0, close: float = 0.01, late: float = 0.0) -> None:
    assert wave.dtype == torch.float32
    assert wave.dim() == 1
    assert seconds * rate <= len(wave) + 1 and len(wave) <= (seconds + late) * rate + 1  # noqa: PT018
    middle = wave[len(wave) // 4 : -(len(wave) // 4)].double().numpy()
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16 * len(middle)))
    assert spectrum.argmax() * rate / (16 * len(middle)) == pytest.approx(440, abs=1)
    assert math.sqrt(2 * (middle**2).mean()) == pytest.approx(0.5, rel=close)


@pytest.mark.parametrize("kind", LIBSNDFILE)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_libsndfile_format_gives_the_tone_back(kind, channels):
    data = encoded(kind, tone(16_000, channels=channels), 16_000)
    assert_tone(load(data, 16_000), 16_000, close=0.03)
    assert_tone(load(data, 8_000), 8_000, close=0.03)
    assert probe(data) == AudioInfo(1.0, 16_000, channels)


@pytest.mark.parametrize("kind", FFMPEG)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_ffmpeg_format_gives_the_tone_back(kind, channels, tmp_path):
    rate = FFMPEG[kind][2]
    data = muxed(tmp_path / "sound", kind, tone(rate, channels=channels))
    assert_tone(load(data, 16_000), 16_000, close=0.03, late=0.08)
    info = probe(data)
    assert (info.rate, info.channels) == (rate, channels)
    assert info.seconds == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("channels", [6, 8])
def test_surround_sound_in_m4a(channels, tmp_path):
    samples = tone(44_100, channels=channels)
    samples[:, 3] = 0  # the codec takes all but the lowest tones from the fourth channel
    wave = load(muxed(tmp_path / "sound", "m4a", samples), 16_000)
    assert_tone(wave * channels / (channels - 1), 16_000, close=0.03, late=0.08)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_damage_is_not_reported_from_inside_a_callback():
    data = encoded("aiff", tone(16_000), 16_000)
    for length in range(22, 38, 3):
        with pytest.raises(UserError):
            load(data[:length], 16_000)


@pytest.mark.parametrize("kind", ["m4a", "mkv"])
def test_the_sound_of_a_video_is_read_and_may_be_shorter_than_the_picture(kind, tmp_path):
    path = tmp_path / "video"
    rate = FFMPEG[kind][2]
    muxed(path, kind, tone(rate), picture=True)
    assert_tone(load(path, 16_000), 16_000, close=0.03, late=0.08)
    assert probe(path).seconds == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("kind", [*LIBSNDFILE, *FFMPEG])
def test_a_folder_is_looked_through_for_all_of_them(kind):
    assert {"wavex": ".wav", "ts": ".ts"}.get(kind, f".{kind.split('-')[0]}") in SUFFIXES


@pytest.mark.parametrize("kind", ["m4a", "mov", "webm", "mkv"])
def test_a_pause_in_the_clock_is_silence(kind, tmp_path):
    """A tone of 1 s, 3 s of nothing, a tone of 1 s."""
    rate = FFMPEG[kind][2]
    path = tmp_path / "sound"
    muxed(path, kind, tone(rate, 2.0), pauses=((1.0, 3.0),))
    wave = load(path, 16_000)
    loud = wave.unfold(0, 1_600, 1_600).square().mean(1).sqrt() > 0.1  # of each 0.1 s
    assert loud[1:9].all()
    assert not loud[12:39].any()
    assert loud[42:49].all()
    assert len(wave) / 16_000 == pytest.approx(5.0, abs=0.1)
    assert probe(path).seconds == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(("kind", "picture"), [("m4a", True), ("mkv", True), ("m4a", False), ("webm", False)])
def test_sound_that_begins_late_keeps_its_place(kind, picture, tmp_path):
    path = tmp_path / "sound"
    muxed(path, kind, tone(FFMPEG[kind][2]), picture, pauses=((0.0, 2.0),))
    wave = load(path, 16_000)
    assert wave[: 16_000 * 19 // 10].abs().max() == 0
    assert wave[16_000 * 21 // 10 : 16_000 * 29 // 10].square().mean().sqrt() > 0.3
    assert len(wave) / 16_000 == pytest.approx(3.0, abs=0.1)
    assert probe(path).seconds == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("kind", ["m4a", "webm"])
def test_a_clock_that_leaps_hours_is_no_pause(kind, tmp_path):
    path = tmp_path / "sound"
    muxed(path, kind, tone(FFMPEG[kind][2], 2.0), pauses=((1.0, 7_200.0),))
    with pytest.raises(
        UserError, match=r"its clock leaps from 1\.0\d+ s to 7201\.\d+ s, which is no pause; write it an"
    ):
        load(path, 16_000)


def test_a_clock_that_leaps_beyond_the_end_is_no_pause(tmp_path):
    data = muxed(tmp_path / "sound", "mkv", tone(48_000, 2.0), pauses=((1.0, 60.0),))
    assert data.count(b"00:01:02.008000000") == 1
    with pytest.raises(UserError, match=r"its clock leaps from 1\.\d+ s to 61\.\d+ s, which is no pause"):
        load(data.replace(b"00:01:02.008000000", b"00:00:03.008000000"), 16_000)


@pytest.mark.parametrize("kind", ["m4a", "webm"])
def test_a_clock_that_ran_for_hours_before_is_taken_to_begin_with_the_sound(kind, tmp_path):
    """Part of a live stream."""
    path = tmp_path / "sound"
    muxed(path, kind, tone(FFMPEG[kind][2]), pauses=((0.0, 7_200.0),))
    assert_tone(load(path, 16_000), 16_000, close=0.03, late=0.08)
    assert probe(path).seconds == pytest.approx(1.0, abs=0.08)


def test_matroska_without_a_duration_promises_nothing(tmp_path):
    """FFmpeg guesses one from the bit rate, by which this file would be cut short."""
    path = tmp_path / "sound"
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="matroska", options={"live": "1"}) as output:
        stream = output.add_stream("pcm_s16le", rate=16_000)
        stream.layout = "mono"
        for start in range(0, 640_000, 640):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert len(load(path, 16_000)) == 640_000
    assert probe(path).seconds == pytest.approx(40.0)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000, 44_101, 12_345])
@pytest.mark.parametrize("asked", [8_000, 16_000])
def test_any_rate(rate, asked):
    assert_tone(load(encoded("wav-16", tone(rate, 0.4), rate), asked), asked, 0.4)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_any_number_of_channels_at_192_khz(channels):
    assert_tone(load(encoded("wav-24", tone(192_000, 0.5, channels), 192_000), 16_000), 16_000, 0.5)


def test_mono_is_the_mean_of_the_channels():
    channels = torch.tensor([[1.0, 0.5, -1.0], [0.0, 0.5, 1.0]])
    assert load((channels, 8_000), 8_000).tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_a_twentieth_of_a_second(rate):
    assert len(load(encoded("flac-16", tone(rate, 0.05), rate), 16_000)) == 800


def test_one_sample():
    assert len(load((torch.ones(1), 16_000), 16_000)) == 1
    assert len(load((torch.ones(1), 16_000), 48_000)) == 3


@pytest.mark.parametrize(
    ("old", "new"), [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (192_000, 8_000), (16_000, 44_100)]
)
def test_blocks_give_what_one_call_gives(old, new, monkeypatch):
    monkeypatch.setattr(audio, "RESAMPLE_SAMPLES", 5_000)
    wave = torch.randn(37_123, generator=torch.Generator().manual_seed(0)) * 0.1
    whole = torchaudio.functional.resample(
        wave,
        old,
        new,
        audio.ZERO_CROSSINGS,
        audio.ROLLOFF,
        "sinc_interp_kaiser",
        audio.KAISER_BETA,
    )
    parts = load((wave, old), new)
    assert parts.shape == whole.shape
    assert (parts - whole).abs().max() < 1e-5


@pytest.mark.parametrize(("old", "new"), [(44_100, 16_000), (8_000, 16_000), (22_050, 8_000)])
def test_the_filter_without_a_table_is_the_same_filter(old, new, monkeypatch):
    wave = torch.randn(9_001, generator=torch.Generator().manual_seed(0)) * 0.1
    table = load((wave, old), new)
    monkeypatch.setattr(audio, "LARGEST_KERNEL", 0)
    monkeypatch.setattr(audio, "RESAMPLE_SAMPLES", 1_000)
    direct = load((wave, old), new)
    assert direct.shape == table.shape
    assert (direct - table).abs().max() < 2e-5


def test_what_the_new_rate_cannot_hold_is_removed():
    high = 0.5 * torch.sin(2 * torch.pi * 9_000 * torch.arange(48_000).double() / 48_000)
    assert load((high, 48_000), 16_000)[1_000:-1_000].abs().max() < 1e-4


@pytest.mark.parametrize("name", ["two words.wav", 'it\'s "quoted".flac', "녹음 하나.wav", "no-extension", "a:b%d.mp3"])
def test_names_and_wrong_extensions_do_not_matter(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(encoded("flac-16", tone(16_000), 16_000))
    for source in (path, str(path)):
        assert_tone(load(source, 16_000), 16_000)


def test_m4a_with_a_name_that_ffmpeg_would_take_for_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    muxed(tmp_path / "data", "m4a", tone(44_100))
    (tmp_path / "data").rename("concat:노래 'x'.wav")
    assert_tone(load("concat:노래 'x'.wav", 16_000), 16_000, close=0.03, late=0.08)


def test_bytes_files_and_pipes_give_the_same(tmp_path):
    data = encoded("ogg", tone(16_000), 16_000)
    path = tmp_path / "a.ogg"
    path.write_bytes(data)
    expected = load(path, 16_000)

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with open(path, "rb") as file:
        assert torch.equal(load(file, 16_000), expected)
        assert torch.equal(load(file, 16_000), expected)  # from the start again, and not closed
    for source in (data, io.BytesIO(data), Pipe(data)):
        assert torch.equal(load(source, 16_000), expected)


def test_arrays_of_any_number_type():
    wave = torch.tensor([0.0, 0.5, -1.0])
    for array in (wave, wave.double(), (wave * 32768).short(), (wave * 2**31).to(torch.int32), wave.numpy()):
        assert load((array, 16_000), 16_000).tolist() == [0.0, 0.5, -1.0]
    assert load((np.array([128, 192, 0], np.uint8), 16_000), 16_000).tolist() == [0.0, 0.5, -1.0]
    assert probe((np.zeros((2, 800)), 8_000)) == AudioInfo(0.1, 8_000, 2)


@pytest.mark.parametrize("rate", [8_000.0, np.int64(8_000), np.float32(8_000)])
def test_a_rate_may_be_a_whole_float(rate):
    assert len(load((torch.zeros(800), rate), 16_000)) == 1_600
    assert probe((torch.zeros(800), rate)) == AudioInfo(0.1, 8_000, 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((np.zeros(8), 8_000.5), r"<array>: its sample rate is 8000\.5; wanted a whole number of Hz"),
        ((np.zeros(8), math.nan), "<array>: its sample rate is nan; wanted a whole number of Hz"),
        ((np.zeros(8), "8000"), "<array>: its sample rate is '8000'; wanted a whole number of Hz"),
        (("a.wav",), r"\('a\.wav',\): no recording; wanted a path, bytes, a binary file, or \(samples, rate\)"),
        (12, "12: no recording; wanted a path, bytes, a binary file"),
        (None, "None: no recording; wanted"),
        (torch.zeros(8), "tensor.*: no recording; wanted"),
        (io.StringIO("a"), "StringIO.*: no recording; wanted"),
    ],
)
def test_what_is_no_source(source, message):
    for read in (lambda one: load(one, 16_000), probe):
        with pytest.raises(UserError, match=message):
            read(source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((16_000, 65)), r"<array>: \(16000, 65\) looks like \(N, channels\)"),
        (np.zeros((2, 2, 2)), r"<array>: numbers \(N,\) or \(channels, N\) wanted"),
        (np.array(["a"]), "<array>: numbers"),
        (np.zeros(0), "<array>: it has no samples"),
        (np.array([0.0, np.nan]), r"<array>: NaN or infinite sample at 0.000 s"),
    ],
)
def test_wrong_arrays(array, message):
    with pytest.raises(UserError, match=message):
        load((array, 16_000), 16_000)


# --- what cannot be read


@pytest.mark.parametrize("read", [lambda source: load(source, 16_000), probe])
def test_missing_folder_empty_and_zero_length(read, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "header.wav").write_bytes(encoded("wav-16", tone(16_000, 0), 16_000))
    for name, message in [
        ("없음.wav", "없음.wav: there is no such file"),
        (".", "this is a folder; wanted an audio file"),
        ("empty.wav", r"empty.wav: the file is empty \(0 bytes\)"),
        ("header.wav", r"header.wav: it has no samples \(zero-length audio\)"),
        ("nul\0.wav", "cannot be opened"),
    ]:
        with pytest.raises(UserError, match=message):
            read(tmp_path / name)
    with pytest.raises(UserError, match="<bytes>: the file is empty"):
        read(b"")


NOISE = np.random.default_rng(0).bytes(20_000)
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///tmp/secret.wav\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "data",
    [
        b"a",
        b"hello\n" * 500,
        NOISE,
        bytes(5_000),
        b"\x89PNG\r\n\x1a\n" + NOISE,
        b"ID3" + NOISE,
        b"OggS" + NOISE,
        b"RIFF\x10\0\0\0WAVE" + NOISE,
        b"\xff\xf1" + NOISE,
        b"\xff\xfb\x90\x64" + NOISE,
        PLAYLIST,
    ],
    ids=["a", "text", "noise", "zeros", "png", "id3", "ogg", "riff", "adts", "mp3", "playlist"],
)
def test_what_is_not_audio(data, tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "song.wav"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"song\.wav: "):
        load(path, 16_000)


def test_not_audio_says_so():
    pytest.importorskip("av")
    with pytest.raises(UserError, match="<bytes>: not audio that can be read"):
        load(b"hello\n" * 500, 16_000)


def test_video_without_sound(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "silent.mp4"), "w") as output:
        video = output.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        output.mux(video.encode(None))
    with pytest.raises(UserError, match=r"silent\.mp4: it has no audio track"):
        load(tmp_path / "silent.mp4", 16_000)


def test_without_pyav(tmp_path, monkeypatch):
    path = tmp_path / "a.m4a"
    muxed(path, "m4a", tone(44_100))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"a\.m4a: .* is not installed: pip install av"):
        load(path, 16_000)


@pytest.mark.parametrize("kind", ["wav-16", "wav-24", "wav-float", "rf64", "aiff"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.999])
def test_cut_uncompressed_says_what_is_there(kind, share):
    data = encoded(kind, tone(16_000, 4), 16_000)
    cut = data[: int(len(data) * share)]
    for read in (lambda source: load(source, 16_000), probe):
        with pytest.raises(UserError, match=r"<bytes>: cut short: \d\.\d+ s of 4\.000 s are there") as caught:
            read(cut)
        assert float(str(caught.value).split()[3]) == pytest.approx(4 * share, abs=0.003)


@pytest.mark.parametrize(("kind", "width"), [("sph", 2), ("sph-mulaw", 1)])
def test_cut_sphere_says_what_is_there(kind, width):
    data = encoded(kind, tone(16_000, 4), 16_000)
    for read in (lambda source: load(source, 16_000), probe):
        with pytest.raises(UserError, match=r"<bytes>: cut short: 1\.500 s of 4\.000 s are there; copy it again"):
            read(data[: 1024 + 24_000 * width])


@pytest.mark.parametrize("instead", [b"sample_Count -i 64000", b"sample_count -i 64k"])
def test_a_sphere_header_that_promises_nothing_is_read_whole(instead):
    data = encoded("sph", tone(16_000, 4), 16_000)
    head = data[:1024].replace(b"sample_count -i 64000", instead).ljust(1024)[:1024]
    assert len(load(head + data[1024:40_000], 16_000)) == (40_000 - 1024) // 2


@pytest.mark.parametrize("kind", ["flac-16", "flac-24"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_cut_flac(kind, share):
    noise = np.random.default_rng(0).normal(0, 0.1, 64_000)
    data = encoded(kind, noise, 16_000)
    with pytest.raises(UserError, match=r"<bytes>: cut short or damaged: about \d\.\d+ s of 4\.000 s can be read"):
        load(data[: int(len(data) * share)], 16_000)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_mp3(share):
    data = encoded("mp3", np.random.default_rng(0).normal(0, 0.1, 64_000), 16_000)
    with pytest.raises(UserError, match=r"about \d\.\d+ s of 4\.000 s can be read"):
        load(data[: int(len(data) * share)], 16_000)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_cut_ogg(kind):
    data = encoded(kind, np.random.default_rng(0).normal(0, 0.1, 64_000), 16_000)
    with pytest.raises(UserError, match="the file ends inside its Ogg headers"):
        load(data[:300], 16_000)
    with pytest.raises(UserError, match="the file ends inside its Ogg headers"):
        load(data[:20], 16_000)
    for share in (0.5, 0.9):
        with pytest.raises(UserError, match=r"the file ends inside an Ogg page after \d\.\d+ s of an unknown whole"):
            load(data[: int(len(data) * share)], 16_000)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_a_flipped_byte_drops_a_page_and_is_seen(kind):
    data = bytearray(encoded(kind, np.random.default_rng(0).normal(0, 0.1, 320_000), 16_000))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(UserError, match=r"about 1\d\.\d+ s of 20\.000 s can be read"):
        load(bytes(data), 16_000)


def test_cut_m4a_and_webm(tmp_path):
    sound = np.random.default_rng(0).normal(0, 0.1, (176_400, 1)).astype(np.float32)
    data = muxed(tmp_path / "a", "m4a", sound)
    with pytest.raises(UserError, match=r"an m4a or mp4 without its index \(moov\)"):
        load(data[: len(data) // 2], 16_000)
    data = muxed(tmp_path / "b", "m4a", sound, movflags="faststart")
    with pytest.raises(UserError, match="cut short"):
        load(data[: len(data) // 2], 16_000)
    data = muxed(tmp_path / "c", "webm", sound)
    with pytest.raises(UserError, match=r"cut short: 1\.\d+ s of 3\.6\d+ s are there"):
        load(data[: len(data) // 2], 16_000)


@pytest.mark.parametrize("kind", ["wav-16", "rf64", "aiff"])
def test_sound_behind_the_data_chunk_is_not_dropped_in_silence(kind):
    one = encoded(kind, tone(16_000, 2), 16_000)
    name = b"SSND" if kind == "aiff" else b"data"
    sound = one[one.index(name) :]
    for joined in (one + one, one + sound):
        behind = len(joined) - len(one)
        for read in (lambda source: load(source, 16_000), probe):
            with pytest.raises(
                UserError,
                match=rf"header says 2\.000 s of sound, but {behind} bytes lie behind it: files joined end to",
            ):
                read(joined)


@pytest.mark.parametrize("there", [0, 1_000, 32_000])
def test_a_recorder_that_was_killed(there):
    """Its header says how much there was when it was written last."""
    wav = bytearray(encoded("wav-16", np.random.default_rng(0).normal(0, 0.1, 64_000), 16_000))
    wav[40:44] = struct.pack("<I", there * 2)
    found = (
        rf"header says {there / 16_000:.3f} s of sound, but {(64_000 - there) * 2} bytes lie behind it: .* or a reco"
    )
    for read in (lambda source: load(source, 16_000), probe):
        with pytest.raises(UserError, match=found):
            read(bytes(wav))


def test_a_header_of_nothing_is_open_ended_where_libsndfile_reads_on():
    wav = bytearray(encoded("wav-16", tone(16_000), 16_000))
    wav[4:8], wav[40:44] = struct.pack("<I", 8), bytes(4)
    assert_tone(load(bytes(wav), 16_000), 16_000)


NOTE = b"LIST" + struct.pack("<I", 10) + b"INFOIART\0\0"


@pytest.mark.parametrize(
    "notes",
    [
        NOTE,
        b"\0" + NOTE,  # one byte of padding too many
        b"x" + NOTE,
        NOTE + b"bext" + struct.pack("<I", 3) + b"abc" + b"iXML" + struct.pack("<I", 2) + b"ab",  # no padding
        b"LIST" + struct.pack("<I", 999) + b"INFO",  # cut: the sound is there
        b"own " + struct.pack("<I", 4) + b"abcd" + bytes(100_000),
        bytes(100_000),
        b"TAG".ljust(128, b"x"),
        b"ID3\x04" + bytes(6) + b"TIT2" * 100,
        b"\r\n",
        b"\xff" * 1_000,  # 31 ms
    ],
    ids=["list", "late", "no-zero", "unpadded", "cut", "own", "zeros", "id3v1", "id3v2", "newline", "short"],
)
@pytest.mark.parametrize("samples", [16_000, 15_999])
def test_notes_behind_the_sound_are_no_sound(notes, samples):
    wav = encoded("wav-8", tone(16_000)[:samples], 16_000)
    assert len(load(wav + notes, 16_000)) == samples
    assert len(load(wav[: 44 + samples] + notes, 16_000)) == samples  # no padding where the size is odd
    assert probe(wav + notes).seconds == samples / 16_000


def test_joined_flac_says_what_can_be_read():
    data = encoded("flac-16", tone(16_000, 2), 16_000)
    with pytest.raises(
        UserError, match=r"the 2\.000 s of its header can be read, but not what lies behind them .* split"
    ):
        load(data + data, 16_000)


def test_streamed_wav_and_flac_promise_nothing_and_are_read_whole():
    wav = bytearray(encoded("wav-16", tone(16_000), 16_000))
    wav[40:44] = b"\xff\xff\xff\xff"
    assert_tone(load(bytes(wav), 16_000), 16_000)
    flac = bytearray(encoded("flac-16", tone(16_000), 16_000))
    flac[21] &= 0xF0  # the 36 bits of the sample count
    flac[22:26] = bytes(4)
    assert_tone(load(bytes(flac), 16_000), 16_000)
    assert probe(bytes(flac)) == AudioInfo(1.0, 16_000, 1)


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus"])
def test_joined_files_are_read_whole(kind):
    pytest.importorskip("av")
    joined = b"".join(encoded(kind, tone(16_000, seconds), 16_000) for seconds in (2.0, 3.0))
    assert len(load(joined, 16_000)) == pytest.approx(80_000, abs=5_000)
    assert probe(joined).seconds == pytest.approx(5.0, abs=0.3)


@pytest.mark.parametrize("seconds", [1.0, 20.0])
def test_a_tag_behind_a_flac_is_no_damage(seconds):
    data = encoded("flac-16", tone(16_000, seconds), 16_000)
    assert_tone(load(data + b"TAG".ljust(128, b"\0"), 16_000), 16_000, seconds)
    with pytest.raises(UserError, match="cut short or damaged"):
        load(data[: len(data) // 2] + b"TAG".ljust(128, b"\0"), 16_000)


def test_mp3_without_a_length_header_is_read_whole():
    pytest.importorskip("av")
    quiet = np.concatenate([tone(16_000, 1) * 0.001, np.random.default_rng(0).normal(0, 0.2, (64_000, 1))])
    buffer = io.BytesIO()
    soundfile.write(
        buffer, quiet, 16_000, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3
    )
    data = buffer.getvalue()
    second = data.index(data[:2], data.index(b"Xing"))  # the next MPEG frame
    assert len(load(data[second:], 16_000)) == pytest.approx(80_000, abs=2_500)
    tagged = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256) + data
    assert len(load(tagged, 16_000)) == 80_000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_float_wav(bad):
    samples = tone(16_000, 1, 2)
    samples[4_000, 1] = bad
    with pytest.raises(UserError, match=r"<bytes>: NaN or infinite sample at 0\.250 s"):
        load(encoded("wav-float", samples, 16_000), 8_000)


def test_floats_whose_sum_overflows_are_finite():
    wave = np.full(8, 3e38, dtype=np.float32)
    assert load((wave, 8_000), 8_000).tolist() == wave.tolist()


@pytest.mark.parametrize("rate", [0, -16_000, 2_000_000])
def test_impossible_rates(rate):
    with pytest.raises(UserError, match=f"the asked sample rate is {rate} Hz; wanted 100 to 1000000 Hz"):
        load((torch.zeros(10), 16_000), rate)
    with pytest.raises(UserError, match="<array>: its sample rate is"):
        load((torch.zeros(10), rate), 16_000)
    with pytest.raises(UserError, match="the sample rate to write is"):
        write_flac(torch.zeros(10), rate)


def test_impossible_rate_in_an_aiff_header():
    data = bytearray(encoded("aiff", tone(16_000), 16_000))
    data[28:30] = b"\x7f\xfe"  # the exponent of an 80-bit float
    with pytest.raises(UserError, match=r"<bytes>: (cut short|the rate in its header)"):
        load(bytes(data[:1_000]), 16_000)


def test_a_codec_that_ffmpeg_does_not_know_and_a_damaged_packet(tmp_path):
    data = muxed(tmp_path / "a", "webm", tone(48_000)).replace(b"A_OPUS", b"A_NONE")
    with pytest.raises(UserError, match="its audio track is of a kind that FFmpeg cannot decode"):
        load(data, 16_000)
    data = muxed(tmp_path / "b", "aac", tone(44_100))
    with pytest.raises(UserError, match="cut short or damaged: Invalid data found"):
        load(data[: len(data) // 2 + 7], 16_000)


def test_a_rate_that_changes_within(tmp_path):
    data = b""
    for rate in (44_100, 32_000):
        data += adts(tmp_path / str(rate), rate)
    with pytest.raises(UserError, match="its rate changes from 44100 to 32000 Hz; split it there"):
        load(data, 16_000)


def adts(path: Path, rate: int) -> bytes:
    FFMPEG["adts"] = ("adts", "aac", rate)
    try:
        return muxed(path, "adts", tone(rate))
    finally:
        del FFMPEG["adts"]


def test_impossible_rate_in_a_header():
    data = bytearray(encoded("wav-16", tone(16_000), 16_000))
    data[24:28] = struct.pack("<I", 7)
    for read in (lambda source: load(source, 16_000), probe):
        with pytest.raises(UserError, match="<bytes>: the rate in its header is 7 Hz"):
            read(bytes(data))


# --- writing


def test_flac_keeps_16_bit_exactly_and_clips():
    steps = torch.randint(-32768, 32768, (5_000,), generator=torch.Generator().manual_seed(0))
    wave = steps / 32768
    assert torch.equal(load(write_flac(wave, 16_000), 16_000), wave)
    loud = load(write_flac(torch.tensor([1.0, 2.0, -3.0]), 8_000), 8_000)
    assert loud.tolist() == [32767 / 32768, 32767 / 32768, -1.0]


def test_flac_refuses_nothing_and_nan():
    with pytest.raises(UserError, match="nothing to write: the audio has no samples"):
        write_flac(torch.zeros(0), 16_000)
    with pytest.raises(UserError, match="nothing written: the audio has NaN or infinite samples"):
        write_flac(torch.tensor([0.0, math.nan]), 16_000)
    with pytest.raises(UserError, match="FLAC cannot hold 96001 Hz; name another rate"):
        write_flac(torch.zeros(8), 96_001)
    with pytest.raises(
        UserError, match="nothing written: a sample of 1096; wanted sound, about -1 to 1: divide by its"
    ):
        write_flac(torch.tensor([0.0, -1096.0]), 16_000)


def test_files_below_follows_links_but_not_in_circles(tmp_path):
    for name in ("there/a.wav", "here/b/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "here/link").symlink_to(tmp_path / "there")
    (tmp_path / "here/b/round").symlink_to(tmp_path / "here")
    (tmp_path / "here/lost.wav").symlink_to(tmp_path / "nowhere.wav")
    found = sorted(str(path.relative_to(tmp_path / "here")) for path in files_below(tmp_path / "here"))
    assert found == ["b/c.wav", "link/a.wav"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_is_spelled_as_the_disk_does(form, tmp_path):
    here, there = (unicodedata.normalize(one, "한국") for one in (form, {"NFC": "NFD", "NFD": "NFC"}[form]))
    path = tmp_path / here / there / f"{here}.wav"  # mixed, as where folders were copied and files unpacked
    path.parent.mkdir(parents=True)
    path.touch()
    for one in ("NFC", "NFD"):
        assert spelled(unicodedata.normalize(one, str(path))) == str(path)
    assert spelled(str(path)) == str(path)
    (tmp_path / there).mkdir()  # a folder in both forms
    assert spelled(str(tmp_path / there / here / f"{there}.wav")) == str(path)
    assert spelled(f"./{here}/nothing.wav") == f"./{here}/nothing.wav"


# --- long recordings


def sparse_wav(path: Path, rate: int, channels: int, seconds: int) -> None:
    """Silence as an RF64 file that takes no room on the disk."""
    size = rate * channels * 2 * seconds
    body = struct.pack("<4sIQQQI", b"ds64", 28, size + 72, size, size // (2 * channels), 0)
    body += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    with open(path, "wb") as file:
        file.write(b"RF64\xff\xff\xff\xffWAVE" + body + b"data\xff\xff\xff\xff")
        file.truncate(file.tell() + size)


def peak_megabytes(path: Path, rate: int) -> tuple[float, int]:
    """(peak memory of load beyond what the process had, samples), measured in a process of its own."""
    program = textwrap.dedent(f"""
        import resource, torch
        from las.audio import load
        torch.set_num_threads(1)
        load((torch.zeros(48_000), 48_000), {rate})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        samples = len(load({str(path)!r}, {rate}))
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, samples)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    peak, samples = done.stdout.split()
    return float(peak), int(samples)


def test_ten_minutes_of_48_khz_stereo_need_little_memory(tmp_path):
    sparse_wav(tmp_path / "long.wav", 48_000, 2, 600)
    assert probe(tmp_path / "long.wav") == AudioInfo(600.0, 48_000, 2)
    peak, samples = peak_megabytes(tmp_path / "long.wav", 16_000)
    assert samples == 600 * 16_000
    assert peak < 2 * samples * 4 / 2**20 + 100  # the result, its parts before they are joined, a block


@pytest.mark.slow
def test_an_hour_of_192_khz_with_eight_channels(tmp_path):
    sparse_wav(tmp_path / "long.wav", 192_000, 8, 3_600)
    peak, samples = peak_megabytes(tmp_path / "long.wav", 16_000)
    assert samples == 3_600 * 16_000
    assert peak < 2 * samples * 4 / 2**20 + 100
