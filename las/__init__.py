"""Listen, Attend and Spell: recordings in, transcripts and word error rates out.

import las
for transcript in las.load().transcribe(["one.wav", "two.mp3"]):
    print(transcript.source, transcript.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from las.transcribe.recognizer import Recognizer

__version__ = "0.1.0"


def load(name: str | None = None, device: str = "auto") -> Recognizer:
    """A model, ready to transcribe: one that ships, by its name (`las models`), a folder, or the default one."""
    from las.recipe import DEFAULT_MODEL
    from las.recipe.models import open_model

    return open_model(name or DEFAULT_MODEL, device)[0]
