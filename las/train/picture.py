"""Attention weights -> a picture: a row for each token, a column for each listener frame."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def draw_attention(weights: Tensor, pieces: list[str], path: Path) -> Tensor | None:
    """Draw weights (L, S), the tokens beside their rows, as a PNG file; returns the pixels (rows, columns, 3).

    Nothing is drawn, and None returned, where matplotlib is not installed. A token that no installed font can show
    is written by its code points, so that no row is left blank.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(8, 1.2 + 0.2 * len(pieces)), layout="constrained", dpi=80)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(weights.float().cpu().numpy(), aspect="auto", origin="upper", cmap="viridis", vmin=0, vmax=1)
    axes.set_xlabel("listener frame")
    axes.set_yticks(range(len(pieces)))
    for label, piece in zip(axes.set_yticklabels(pieces), pieces, strict=True):
        font = _font_for("".join(sorted(set(piece))))
        if font is None:
            label.set_text(" ".join(f"U+{ord(character):04X}" for character in piece))
        else:
            label.set_fontfamily(font)
    axes.set_yticks(range(len(pieces)), [label.get_text() for label in axes.get_yticklabels()])
    canvas.draw()
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))[..., :3]
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
    return pixels


@lru_cache(maxsize=4096)
def _font_for(characters: str) -> str | None:
    """The name of an installed font with a glyph for each of the characters, matplotlib's own first."""
    from matplotlib.font_manager import fontManager

    wanted = {ord(character) for character in characters}
    for font in sorted(fontManager.ttflist, key=lambda one: one.name != "DejaVu Sans"):
        if wanted <= _glyphs(font.fname):
            return font.name
    return None


@lru_cache(maxsize=256)
def _glyphs(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # matplotlib remembers fonts that are gone, and those of other machines
        return frozenset()
