from __future__ import annotations

import sys

import pytest
import torch

from las.train.picture import _font_for, draw_attention

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_picture_is_drawn_as_png(tmp_path):
    path = tmp_path / "000001.png"
    pixels = draw_attention(torch.eye(3, 5), ["▁one", "두", "</s>"], path)
    assert path.read_bytes().startswith(PNG)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[2] == 3
    assert len(pixels.flatten(0, 1).unique(dim=0)) > 2  # not one plain colour
    assert [one.name for one in tmp_path.iterdir()] == ["000001.png"]


def test_bright_is_where_the_weight_is(tmp_path):
    left, right = torch.zeros(1, 2), torch.zeros(1, 2)
    left[0, 0], right[0, 1] = 1.0, 1.0
    pictures = [draw_attention(one, ["a"], tmp_path / "one.png").float() for one in (left, right)]
    middle = pictures[0].shape[1] // 2
    difference = (pictures[0] - pictures[1]).sum(2)
    assert difference[:, :middle].sum() > 0 > difference[:, middle:].sum()  # yellow is brighter than violet


def test_bf16_weights_and_one_token_and_many_can_be_drawn(tmp_path):
    for tokens in (1, 60):
        weights = torch.full((tokens, 7), 1 / 7, dtype=torch.bfloat16)
        assert draw_attention(weights, ["a"] * tokens, tmp_path / "one.png") is not None


@pytest.mark.parametrize("piece", ["$x_1", "\\frac{", "𓀀", "\U000f0000", "", "�"])
def test_any_token_can_be_written(tmp_path, piece):
    assert draw_attention(torch.eye(2), [piece, "</s>"], tmp_path / "one.png") is not None


@pytest.mark.filterwarnings("ignore:Glyph")
def test_fonts_that_are_gone_are_passed_over(tmp_path, monkeypatch):
    """Matplotlib's own list of them may be of another day or machine."""
    from matplotlib.font_manager import FontEntry, fontManager

    monkeypatch.setattr(fontManager, "ttflist", [FontEntry(fname=str(tmp_path / "gone.ttf"), name="Gone")])
    _font_for.cache_clear()
    assert draw_attention(torch.eye(2), ["漢", "</s>"], tmp_path / "one.png") is not None
    _font_for.cache_clear()


def test_without_matplotlib_nothing_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_attention(torch.eye(2), ["a", "b"], tmp_path / "one.png") is None
    assert list(tmp_path.iterdir()) == []
