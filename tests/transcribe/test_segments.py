"""Long recordings cut where it is quietest."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from las.transcribe.segments import pieces

RATE = 1000


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.manual_seed(seed)) * 0.1


def cut_points(wave: Tensor, rate: int, longest: float, block: int = 700) -> list[int]:
    """Where the pieces of a wave that comes in blocks end."""
    found = list(pieces(wave.split(block), rate, longest))
    if found:
        assert torch.equal(torch.cat(found), wave)
    return torch.tensor([len(piece) for piece in found]).cumsum(0).tolist()


def test_what_fits_is_not_cut():
    assert cut_points(noise(4000), RATE, longest=4.0) == [4000]
    assert cut_points(torch.zeros(0), RATE, longest=4.0) == []


def test_every_piece_has_a_sample():
    assert [len(piece) for piece, _ in zip(pieces([noise(2)], RATE, 0.6 / RATE), range(3), strict=False)] == [1, 1]


def test_a_pause_is_cut_in_its_middle():
    wave = noise(10_000)
    wave[3000:3400] = 0.0
    wave[6000:6300] *= 0.01
    ends = cut_points(wave, RATE, longest=4.0)
    assert len(ends) == 3
    assert abs(ends[0] - 3200) <= 30
    assert abs(ends[1] - 6150) <= 60


def test_a_short_gap_between_words_loses_to_a_pause():
    wave = noise(6000)
    wave[2500:2540] = 0.0
    wave[3300:3550] *= 0.01
    assert abs(cut_points(wave, RATE, longest=4.0)[0] - 3425) <= 60


def test_where_noise_hides_the_pause_ctc_finds_it():
    wave = noise(6000)  # as loud everywhere

    def heard(part: Tensor) -> Tensor:
        """Tokens everywhere but from 3.1 s to 3.7 s, in parts of 40 ms; CTC is asked from 1 s on."""
        assert torch.equal(part, wave[1000 : 1000 + len(part)])
        places = 1.0 + (torch.arange(len(part) // 40) + 0.5) * 0.04
        return torch.where((places > 3.1) & (places < 3.7), 1e-5, 0.9)

    assert 3260 <= len(next(pieces([wave], RATE, 4.0, heard=heard))) <= 3540  # no token within .16 s


def test_of_places_where_ctc_is_silent_the_quietest_is_cut():
    wave = noise(6000)
    wave[2500:2800] *= 0.1  # within a word, by CTC
    wave[3300:3600] *= 0.3

    def heard(part: Tensor) -> Tensor:
        places = 1.0 + (torch.arange(len(part) // 40) + 0.5) * 0.04
        return torch.where((places > 3.0) & (places < 3.8), 1e-5, 0.9)

    assert abs(len(next(pieces([wave], RATE, 4.0, heard=heard))) - 3450) <= 60


def test_a_listener_that_made_no_frame_has_no_say():
    wave = noise(6000)
    wave[3300:3600] = 0.0
    plain = [len(one) for one in pieces([wave], RATE, 4.0)]
    assert [len(one) for one in pieces([wave], RATE, 4.0, heard=lambda part: torch.empty(0))] == plain


@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_a_constant_is_no_sound(constant):
    wave = noise(6000) + 0.2 * torch.sin(torch.arange(6000) / 30)
    wave[3300:3600] = 0.0
    assert abs(cut_points(wave + constant, RATE, longest=4.0)[0] - 3450) <= 30


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_wave_is_cut_into_pieces_that_fit(value):
    ends = cut_points(torch.full((20_000,), value), RATE, longest=4.0)
    assert ends[-1] == 20_000
    pieces = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert all(2000 <= piece <= 4000 for piece in pieces[:-1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    samples=st.integers(0, 20_000),
    rate=st.sampled_from([100, 160, 1000, 4410]),
    longest=st.sampled_from([0.3, 1.0, 2.5]),
    quiet=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3000)), max_size=4),
    seed=st.integers(0, 3),
)
def test_pieces_cover_the_wave_and_none_is_too_long(samples, rate, longest, quiet, seed):
    wave = noise(samples, seed)
    for start, length in quiet:
        wave[start : start + length] = 0.0
    ends = cut_points(wave, rate, longest)
    assert sum(ends[-1:]) == samples
    assert all(0 < end - start <= longest * rate for start, end in zip([0, *ends], ends, strict=False))
    assert ends == cut_points(wave, rate, longest, block=20_001)  # whatever the blocks


def test_no_more_than_a_piece_and_a_block_are_held():
    asked = 0

    def blocks():
        nonlocal asked
        for number in range(1000):
            asked += 1
            yield noise(500, number)

    for number, piece in enumerate(pieces(blocks(), RATE, longest=4.0)):
        assert len(piece) >= 2000 or asked == 1000
        assert asked * 500 <= (number + 1) * 4000 + 1000
        assert piece.untyped_storage().nbytes() <= 4 * 5000
