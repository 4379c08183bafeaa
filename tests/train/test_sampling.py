"""Curves of scheduled sampling, at places where one knows them."""

from __future__ import annotations

import pytest

from las.errors import UserError
from las.train.sampling import SHAPES, SamplingConfig


def shares(config: SamplingConfig, *updates: int) -> list[float]:
    return [round(config.share_at(update), 6) for update in updates]


def test_no_share_is_none_for_ever():
    assert {SamplingConfig().share_at(update) for update in (0, 1, 10**9)} == {0.0}


def test_without_a_rise_it_is_there_from_its_start():
    assert shares(SamplingConfig(share=0.1), 0, 1, 10**9) == [0.1, 0.1, 0.1]
    assert shares(SamplingConfig(share=0.1, start=3), 0, 2, 3, 10**9) == [0, 0, 0.1, 0.1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0, 0.25, 0.5, 1, 1]),
        ("exponential", [0, 0.683772, 0.9, 0.99, 0.9999]),  # a tenth is left after half the way
        ("inverse_sigmoid", [0.01, 0.091325, 0.5, 0.99, 0.999999]),  # a quarter: 1 / (1 + root of 99)
    ],
)
def test_curves(shape, expected):
    config = SamplingConfig(share=1.0, start=100, over=1000, shape=shape)
    assert shares(config, 100, 350, 600, 1100, 2100) == expected
    half = SamplingConfig(share=0.5, start=100, over=1000, shape=shape)
    assert shares(half, 100, 350, 600, 1100) == pytest.approx([one / 2 for one in expected[:4]], abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_shares_only_rise_and_stay_within_theirs(shape):
    config = SamplingConfig(share=0.4, start=10, over=50, shape=shape)
    curve = [config.share_at(update) for update in [*range(200), 10**9]]
    assert curve == sorted(curve)
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(0.4)
    assert max(curve) <= 0.4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": -0.1}, r"sampling.share -0.1 must be between 0 and 1"),
        ({"share": 1.1}, r"sampling.share 1.1 must be between 0 and 1"),
        ({"start": -1}, "sampling: start and over must be 0 or more"),
        ({"over": -1}, "sampling: start and over must be 0 or more"),
        ({"shape": "cosine"}, "sampling.shape 'cosine': wanted one of linear, exponential, inverse_sigmoid"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SamplingConfig(**settings)
