"""A recording and where the speller looked in it -> what a web page can play and show."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGNS = {  # how a file begins -> what a browser calls it
    b"fLaC": "audio/flac", b"RIFF": "audio/wav", b"OggS": "audio/ogg", b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg", b"\x1aE\xdf\xa3": "audio/webm",
}  # fmt: skip


@dataclass(frozen=True)
class Attention:
    """Weights of a transcript's tokens over its recording."""

    pieces: tuple[str, ...]  # L tokens as they are shown
    weights: np.ndarray  # (L, S) in 0..1


@dataclass(frozen=True)
class Media:
    """What is shown of one utterance besides its texts; all may be missing."""

    audio: bytes | None = None  # a whole audio file, put into the page
    link: str = ""  # else: its address, relative to the page
    attention: Attention | None = None

    def record(self) -> dict[str, Any]:
        """The same for the page's script."""
        found: dict[str, Any] = {}
        if self.audio is not None:
            found["audio"] = data_address(self.audio, audio_type(self.audio))
        elif self.link:
            found["audio"] = self.link
        if self.attention is not None:
            picture = grey_png(255 - np.round(255 * np.sqrt(self.attention.weights.clip(0, 1))).astype(np.uint8))
            found["attention"] = {"pieces": self.attention.pieces, "picture": data_address(picture, "image/png")}
        return found


def audio_type(data: bytes) -> str:
    """The MIME type of an audio file's bytes.

    >>> audio_type(b"fLaC..."), audio_type(b"\\0\\0\\0 ftypM4A "), audio_type(b"?")
    ('audio/flac', 'audio/mp4', 'application/octet-stream')
    """
    if data[4:8] == b"ftyp":
        return "audio/mp4"
    return next((name for sign, name in SIGNS.items() if data.startswith(sign)), "application/octet-stream")


def data_address(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them (RFC 2397)."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def grey_png(pixels: np.ndarray) -> bytes:
    """Pixels (rows, columns) uint8, 0 black -> a PNG file (ISO/IEC 15948), a pixel a pixel."""
    rows, columns = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each line begins with its filter: 0, none
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
