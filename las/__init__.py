"""Listen, Attend and Spell: recordings in, transcripts and word error rates out.

import las
for transcript in las.load("digits").transcribe(["one.wav", "two.mp3"]):
    print(transcript.source, transcript.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from las.transcribe.recognizer import Recognizer

__version__ = "0.1.0"


def load(name: str = "digits", device: str = "auto") -> Recognizer:
    """A model, by the name of one that ships (`las models`) or by its folder, ready to transcribe."""
    from las.recipe.models import open_model

    return open_model(name, device)[0]
