from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from las.evaluate.media import Attention, Media, audio_type, grey_png


def test_a_png_holds_its_pixels():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    assert np.array_equal(np.round(imread(io.BytesIO(grey_png(pixels))) * 255), pixels)


@pytest.mark.parametrize(
    ("begin", "kind"),
    [
        (b"RIFF....WAVE", "audio/wav"),
        (b"OggS", "audio/ogg"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\x1aE\xdf\xa3", "audio/webm"),
        (b"", "application/octet-stream"),
    ],
)
def test_what_a_browser_calls_a_recording(begin, kind):
    assert audio_type(begin) == kind


def test_a_recording_is_put_in_or_linked_to():
    assert Media().record() == {}
    assert Media(b"fLaC").record() == {"audio": "data:audio/flac;base64,ZkxhQw=="}
    assert Media(link="a%20b.wav").record() == {"audio": "a%20b.wav"}


def test_where_attention_looks_the_picture_is_dark():
    found = Media(attention=Attention(("▁한", "</s>"), np.array([[0, 0.25, 1.0], [0, 0, 2.0]]))).record()["attention"]
    head, data = found["picture"].split(",")
    assert head == "data:image/png;base64"
    assert found["pieces"] == ("▁한", "</s>")
    pixels = np.round(imread(io.BytesIO(base64.b64decode(data))) * 255)
    assert pixels.tolist() == [[255, 127, 0], [255, 255, 0]]
