"""Whether a transcript can be believed."""

import math
from dataclasses import replace

import pytest
import torch

from las.errors import UserError
from las.search.trace import Trace
from las.transcribe.fitted import FILE
from las.transcribe.verdict import (
    OK,
    Evidence,
    Thresholds,
    Verdict,
    judge,
    read_thresholds,
    weigh,
    write_thresholds,
)

RATE = 1000
FRAME = 0.1  # s
FINE = Evidence(5.0, 1.0, 30.0, (0.1, 0.5, 0.9), (False, False, False), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9)
BLANK = 0


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, OK),
        ({"heard": -7.0, "varies": 1.0}, Verdict("silence", 0.0, "no speech to read")),
        ({"still": 6.9, "varies": 1.0}, Verdict("silence", 0.0, "no speech to read")),
        ({"varies": 1.0, "confidence": 0.5}, Verdict("silence", 0.0, "no speech to read")),
        ({"varies": 1.0, "confidence": 0.9}, OK),  # a word that was cut out tightly
        ({"varies": 1.0, "confidence": 0.99, "heard": -0.1}, Verdict("silence", 0.0, "no speech to read")),
        ({"varies": 1.0, "confidence": 1.0, "places": ()}, Verdict("silence", 0.0, "no speech to read")),
        ({"end_nats": 3.0}, Verdict("truncated", 1.0, "speech after the last word")),
        ({"end_seconds": 0.4}, Verdict("truncated", 1.0, "speech after the last word")),
        ({"inside_nats": 9.0, "inside": 0.3}, Verdict("skipped", 0.3, "speech that no word stands for")),
        ({"inside_seconds": 0.9, "inside": 0.3}, Verdict("skipped", 0.3, "speech that no word stands for")),
        ({"confidence": 0.1}, Verdict("low", 0.0, "confidence 0.10")),
        ({"confidence": 0.1, "end_nats": 3.0, "heard": -7, "varies": 0}, Verdict("silence", 0.0, "no speech to read")),
    ],
)  # fmt: skip
def test_verdicts_by_eye(changes, verdict):
    assert judge(replace(FINE, **changes), Thresholds()) == verdict


def test_a_loop_is_repeats_that_attention_does_not_move_on_for():
    stuck = replace(FINE, places=(0.2, 0.6, 0.61, *[0.6] * 3, 0.62), repeated=(False, False, *[True] * 5))
    assert stuck.repeats(0.04) == (pytest.approx(4.5), 0.6)
    found = judge(stuck, Thresholds())
    assert (found.name, found.place) == ("loop", 0.6)
    assert str(found) == "loop at 0.6 s: tokens repeat while attention does not move on"
    moving = replace(stuck, places=(0.2, 0.6, 1.0, 1.4, 1.8, 2.2, 2.6))
    assert moving.repeats(0.04) == (0.0, 0.0)
    assert judge(moving, Thresholds()) == OK
    other = replace(stuck, repeated=(False,) * 7)
    assert judge(other, Thresholds()) == OK
    assert replace(FINE, places=(), repeated=()).repeats(0.04) == (0.0, 0.0)
    assert str(OK) == "ok"


def trace(places, frames=10, spans=True, attention=True) -> Trace:
    weights = torch.nn.functional.one_hot(torch.tensor([*places, frames - 1]), frames).float()
    own = [(place, place) for place in places] if spans else None
    return Trace(weights if attention else 0 * weights, own, [math.log(0.5)] * len(places), None)


def table(*heard: int, frames=10) -> torch.Tensor:
    """CTC that hears some token in those frames and blank in the others."""
    sure = torch.full((frames, 3), 0.005)
    sure[:, BLANK] = 0.99
    for frame in heard:
        sure[frame] = torch.tensor([0.09, 0.9, 0.01])
    return sure.log()


def wave(*loud: tuple[float, float]) -> torch.Tensor:
    found = 0.0001 * torch.randn(RATE, generator=torch.manual_seed(0))
    for start, end in loud:
        count = round((end - start) * RATE)
        found[round(start * RATE) :][:count] += torch.sin(torch.cumsum(torch.linspace(0.2, 2.5, count), 0))
    return found


def evidence(tokens, found, sound, ctc) -> Evidence:
    return weigh(tokens, found, sound, RATE, FRAME, ctc, BLANK)


def test_speech_that_no_token_stands_for_is_found_twice():
    """Three words are spoken at .1, .5 and .8 s; the transcript has all, the first two, the outer ones."""
    sound, ctc = wave((0.1, 0.3), (0.45, 0.6), (0.75, 0.9)), table(1, 5, 8)
    cost = -math.log(0.09)
    full = evidence((1, 2, 1), trace([1, 5, 8]), sound, ctc)
    assert (full.end_nats, full.end_seconds, full.inside_nats, full.inside_seconds) == (0, 0, 0, 0)
    assert full.places == pytest.approx((0.1, 0.5, 0.8))
    assert full.repeated == (False, False, True)
    assert full.heard == pytest.approx(math.log(0.91 / 0.09), rel=1e-5)
    assert full.confidence == pytest.approx(0.5)
    cut = evidence((1, 2), trace([1, 5]), sound, ctc)
    assert cut.end_nats == pytest.approx(cost, rel=1e-5)
    assert (cut.end, cut.end_seconds) == (pytest.approx(0.6), pytest.approx(0.15, abs=0.02))
    jumped = evidence((1, 1), trace([1, 8]), sound, ctc)
    assert jumped.inside_nats == pytest.approx(cost, rel=1e-5)
    assert (jumped.inside, jumped.inside_seconds) == (pytest.approx(0.45, abs=0.02), pytest.approx(0.15, abs=0.02))
    assert jumped.end_nats == jumped.end_seconds == 0
    nothing = evidence((), trace([]), sound, ctc)
    assert nothing.end_nats == pytest.approx(3 * cost, rel=1e-5)
    assert nothing.end_seconds == pytest.approx(0.5, abs=0.04)
    assert nothing.confidence == 1.0
    assert judge(nothing, Thresholds()) == Verdict("truncated", 0.0, "speech, and no word was written")


def test_a_model_is_judged_by_what_it_has():
    sound = wave((0.1, 0.3), (0.45, 0.6), (0.75, 0.9))
    deaf = evidence((1, 2), trace([1, 5], spans=False), sound, None)
    assert (deaf.heard, deaf.end_nats, deaf.inside_nats) == (0.0, 0.0, 0.0)
    assert deaf.end_seconds == pytest.approx(0.15, abs=0.02)
    blind = evidence((1, 2), trace([1, 5], attention=False), sound, table(1, 5, 8))
    assert blind.places == pytest.approx((0.1, 0.5))
    assert blind.end_seconds == pytest.approx(0.15, abs=0.02)
    neither = evidence((1, 1, 1), trace([1, 1, 1], spans=False, attention=False), sound, table(1))
    assert neither.repeats(0.04)[0] == 2.0  # more tokens than CTC can place, and none that moves on
    lost = evidence((1, 1, 1), trace([1, 1, 1], spans=False, attention=False), sound, None)
    assert (lost.repeats(0.04)[0], lost.end_seconds, lost.inside_seconds) == (0.0, 0.0, 0.0)  # nobody knows where


def test_speech_is_heard_beside_a_loud_tone():
    """Two seconds of sweeps with pauses, then a second of a tone twice as loud; either alone; beeps with pauses."""
    sweep = torch.sin(torch.cumsum(torch.linspace(0.2, 2.5, 250), 0))
    spoken = torch.cat([sweep, 0.001 * torch.ones(150)]).repeat(5)
    tone = 2 * torch.sin(torch.arange(RATE) * 0.9)
    for sound, heard, silence in (
        (torch.cat([spoken, tone]), (1, 8, 15), False),
        (torch.cat([0.001 * torch.ones(150), tone[:300]]).repeat(4), (1, 8, 15), True),
        (spoken, (1, 8, 15), False),
        (tone, (1, 8), True),
    ):
        ctc = table(*heard, frames=len(sound) // 100)
        ctc[list(heard), 1:] += math.log(0.999 / 0.91)  # all but certain
        ctc[list(heard), BLANK] = math.log(0.001)
        found = evidence(
            (1, 2, 1), trace([1, 8, 15], frames=len(ctc)) if len(ctc) > 15 else trace([1, 5, 8]), sound, ctc
        )
        assert (judge(found, Thresholds()).name == "silence") == silence
    deaf = evidence((1,), trace([1], frames=30, spans=False), torch.cat([spoken, tone]), None)
    assert judge(deaf, Thresholds()).name != "silence"


def test_a_beep_is_not_left_unread():
    """A word, a pause, then half a second of a tone or of a sweep, that no token stands for."""
    word = torch.sin(torch.cumsum(torch.linspace(0.2, 2.5, 300), 0))
    tone = torch.sin(torch.arange(500) * 0.9)
    sweep = torch.sin(torch.cumsum(torch.linspace(0.2, 2.5, 500), 0))
    for after, seconds in ((tone, 0.0), (sweep, 0.5)):
        sound = torch.cat([word, 0.001 * torch.ones(200), after, 0.001 * torch.ones(200)])
        found = evidence((1,), trace([1], frames=12), sound, table(1, frames=12))
        assert found.end_seconds == pytest.approx(seconds, abs=0.03)


def test_clicks_are_silence_whatever_ctc_hears():
    sound = torch.zeros(2 * RATE)
    sound[[300, 700, 1500]] = 0.9
    found = evidence((1, 2), trace([3, 7], frames=20), sound, table(3, 7, frames=20))
    assert found.clicks
    assert judge(found, Thresholds()).name == "silence"


def test_a_wave_without_a_frame():
    found = weigh((), Trace(torch.zeros(1, 0), [], [], []), torch.zeros(5), RATE, FRAME, torch.zeros(0, 3), BLANK)
    assert judge(found, Thresholds()).name == "silence"


def test_thresholds_lie_in_the_model_folder(tmp_path):
    assert read_thresholds(tmp_path) == Thresholds()
    fitted = Thresholds(repeats=4.0, pace=0.1)
    write_thresholds(tmp_path, fitted, {"cases": 7})
    assert read_thresholds(tmp_path) == fitted
    (tmp_path / FILE).write_text('{"verdicts": {"repeats": 1.0}}')
    with pytest.raises(UserError, match="verdicts are no thresholds of `las doctor verdicts`; fit them again"):
        read_thresholds(tmp_path)
    write_thresholds(tmp_path, fitted, {"repeats": math.nan})
    with pytest.raises(
        UserError, match=r"calibration.json: .* \(repeats nan must be a finite number\); fit them again"
    ):
        read_thresholds(tmp_path)


def test_thresholds_are_numbers():
    with pytest.raises(UserError, match="repeats nan must be a finite number"):
        Thresholds(repeats=math.nan)
    with pytest.raises(UserError, match=r"pace 0\.0 s must be above 0"):
        Thresholds(pace=0.0)
