"""Attention of every kind: exact masks, weights that sum to one, and an example by eye for each."""

import math

import pytest
import torch
from torch import Tensor

from las.errors import UserError
from las.model import additive_energy
from las.model.attention import CONFIGS, KINDS
from las.model.attention_content import (
    AdditiveAttention,
    AdditiveConfig,
    ContentAttention,
    ContentConfig,
    DotAttention,
    DotConfig,
    LocationBaseAttention,
    LocationBaseConfig,
    ScaledDotAttention,
    ScaledDotConfig,
)
from las.model.attention_history import (
    CoverageAttention,
    CoverageConfig,
    GmmAttention,
    GmmConfig,
    LocationAttention,
    LocationConfig,
    WindowedAttention,
    WindowedConfig,
)
from las.model.attention_parts import HierarchicalAttention, HierarchicalConfig, MultiHeadAttention, MultiHeadConfig
from las.model.masking import valid_frames
from las.model.memory import Attention, AttentionConfig, Memory

SMALL: dict[str, AttentionConfig] = {
    "content": ContentConfig(width=4),
    "dot": DotConfig(),
    "scaled_dot": ScaledDotConfig(),
    "general": CONFIGS["general"](kind="general"),
    "additive": AdditiveConfig(width=4),
    "location_base": LocationBaseConfig(longest=7),
    "location": LocationConfig(width=4, kernel=3, channels=2),
    "coverage": CoverageConfig(width=4),
    "windowed": WindowedConfig(width=4, window=6),
    "windowed, narrow": WindowedConfig(width=4, window=1),
    "multi_head": MultiHeadConfig(width=4, heads=2),
    "multi_head, additive": MultiHeadConfig(width=4, heads=2, energy="additive"),
    "gmm": GmmConfig(width=4, mixtures=2),
    "hierarchical": HierarchicalConfig(width=4, segment=3),
}
EVERYWHERE = [name for name in SMALL if name != "windowed, narrow"]
LENGTHS = torch.tensor([7, 3, 1, 6])
VALID = valid_frames(LENGTHS, 7)


def made(kind: str) -> tuple[Attention, Tensor, Tensor]:
    """An attention, questions of three steps (3, 4, 2, 5) and frames (4, 7, 6)."""
    torch.manual_seed(0)
    attention = KINDS[SMALL[kind].kind](SMALL[kind], 5, 6).double()
    return attention, torch.randn(3, 4, 2, 5).double(), torch.randn(4, 7, 6).double()


def steps(attention: Attention, questions: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Contexts and weights of the steps one after another: (steps, B, Q, H), (steps, B, Q, S)."""
    state = attention.start(memory, questions.shape[2])
    contexts, weights = [], []
    for question in questions:
        context, weight, state = attention(question, memory, state)
        contexts.append(context)
        weights.append(weight)
    return torch.stack(contexts), torch.stack(weights)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_content_by_eye():
    attention = ContentAttention(ContentConfig(width=2), speller_width=2, frame_width=2)
    for linear in (attention.query, attention.key):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    frames = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    memory = attention.remember(frames, torch.tensor([[True, True, False]]))
    questions = torch.tensor(
        [[[[math.log(3), 0.0], [0.0, 0.0]]]]
    )  # the first likes the first frame three times as much
    contexts, weights = steps(attention, questions, memory)
    torch.testing.assert_close(weights[0], torch.tensor([[[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]]))
    torch.testing.assert_close(contexts[0], torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]))


def test_location_by_eye():
    """Equal frames; a kernel that looks one frame back moves on from where it was, and padding holds it."""
    config = LocationConfig(width=1, kernel=3, channels=1)
    attention = LocationAttention(config, speller_width=1, frame_width=1)
    for weight in attention.parameters():
        torch.nn.init.zeros_(weight)
    attention.location.weight.data[0, 0] = torch.tensor([1000.0, 0.0, 0.0])
    attention.place.weight.data.fill_(1.0)
    attention.energy.weight.data.fill_(1000.0)
    memory = attention.remember(torch.ones(1, 4, 1), torch.tensor([[True, True, True, False]]))
    state = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]])
    _, weights, seen = attention(torch.zeros(1, 3, 1), memory, state)
    third = 1 / 3  # from the last frame there is nowhere to go
    expected = torch.tensor([[[0.0, 1, 0, 0], [0, 0, 1, 0], [third, third, third, 0]]])
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(seen, state + expected)


@torch.no_grad()
@pytest.mark.parametrize("cached", [1 << 20, 24, 1])  # all frames at a time, three, one
def test_location_equals_its_formula_frame_by_frame(cached, monkeypatch):
    monkeypatch.setattr(additive_energy, "CACHED", cached)
    attention, questions, frames = made("location")
    _, weights = steps(attention, questions, attention.remember(frames, VALID))
    for row, length in enumerate(LENGTHS.tolist()):
        summed = [0.0] * length
        for step in range(len(questions)):
            energies = []
            for place in range(length):
                around = [summed[one] if 0 <= one < length else 0.0 for one in (place - 1, place, place + 1)]
                seen = attention.location.weight[:, 0] @ torch.tensor(around, dtype=torch.float64)
                mixed = (
                    attention.query.weight @ questions[step, row, 0]
                    + attention.key(frames[row, place])
                    + attention.place.weight @ seen
                )
                energies.append(float(attention.energy.weight[0] @ mixed.tanh()))
            total = sum(math.exp(energy) for energy in energies)
            expected = [math.exp(energy) / total for energy in energies]
            close(weights[step, row, 0, :length], torch.tensor(expected, dtype=torch.float64))
            summed = [old + new for old, new in zip(summed, expected, strict=True)]


@pytest.mark.parametrize("beams", [1, 2])
def test_location_written_out_has_the_gradients_of_its_formula(beams):
    attention, questions, frames = made("location")
    questions, frames = questions[:, :, :beams].clone().requires_grad_(), frames.requires_grad_()

    def plain(attention: LocationAttention, questions: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        state, contexts, weights = attention.start(memory, beams), [], []
        for question in questions:
            seen = attention.location(state.flatten(0, 1).unsqueeze(1)).unflatten(0, (4, beams)).transpose(2, 3)
            mixed = attention.place(seen) + memory.keys.unsqueeze(1) + attention.query(question).unsqueeze(2)
            weights.append((attention.energy(mixed.tanh()).squeeze(3) + memory.hidden).softmax(2))
            contexts.append(weights[-1] @ memory.frames)
            state = state + weights[-1]
        return torch.stack(contexts), torch.stack(weights)

    learned = [questions, frames, *attention.parameters()]
    ours, theirs = (
        torch.autograd.grad(
            sum(part.square().sum() for part in way(attention, questions, attention.remember(frames, VALID))),
            learned,
        )
        for way in (steps, plain)
    )
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)


def test_additive_written_out_has_the_gradients_of_its_formula():
    attention, questions, frames = made("additive")
    question, frames = questions[0].clone().requires_grad_(), frames.requires_grad_()
    learned = [question, frames, *attention.parameters()]
    memory = attention.remember(frames, VALID)
    context, weights, _ = attention(question, memory, attention.start(memory, 2))
    ours = torch.autograd.grad(context.square().sum() + weights.square().sum(), learned)
    memory = attention.remember(frames, VALID)
    mixed = memory.keys.unsqueeze(1) + attention.query(question).unsqueeze(2)
    weights = (attention.energy(mixed.tanh()).squeeze(3) + memory.hidden).softmax(2)
    plain = torch.autograd.grad((weights @ memory.frames).square().sum() + weights.square().sum(), learned)
    for one, other in zip(ours, plain, strict=True):
        close(one, other)


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_weights_are_a_distribution_over_real_frames(kind, scale):
    attention, questions, frames = made(kind)
    _, weights = steps(attention, questions * scale, attention.remember(frames, VALID))
    assert weights.shape == (3, 4, 2, 7)
    assert (weights >= 0).all()
    assert (weights.masked_fill(VALID.unsqueeze(1), 0.0) == 0).all()
    if kind == "gmm":
        assert (weights.sum(3) <= 1 + 1e-12).all()
    else:
        close(weights.sum(3), torch.ones(3, 4, 2).double())


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
def test_one_utterance_is_heard_as_in_the_batch_whatever_the_padding_holds(kind):
    attention, questions, frames = made(kind)
    results = []
    for filling in (0.0, 1e5):
        filled = frames.masked_fill(~VALID.unsqueeze(2), filling)
        results.append(steps(attention, questions, attention.remember(filled, VALID)))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        memory = attention.remember(frames[one, :length], VALID[one, :length])
        contexts, weights = steps(attention, questions[:, one], memory)
        close(results[0][0][:, one], contexts)
        close(results[0][1][:, one, :, :length], weights)


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
def test_questions_do_not_disturb_each_other(kind):
    attention, questions, frames = made(kind)
    memory = attention.remember(frames, VALID)
    together, _ = steps(attention, questions, memory)
    apart = torch.cat([steps(attention, questions[:, :, place : place + 1], memory)[0] for place in range(2)], 2)
    close(together, apart)


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("chosen", [[0, 2, 3], [3, 0, 1, 2]])
def test_select_keeps_the_named_utterances_in_the_named_order(kind, chosen):
    attention, questions, frames = made(kind)
    memory = attention.remember(frames, VALID)
    rows = torch.tensor(chosen, dtype=torch.int64)
    selected = steps(attention, questions[:, rows], memory.select(rows))
    for ours, theirs in zip(selected, steps(attention, questions, memory), strict=True):
        close(ours, theirs[:, rows])


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_gradients_reach_questions_and_real_frames_only(kind):
    attention, questions, frames = made(kind)
    questions.requires_grad_()
    frames.requires_grad_()
    contexts, _ = steps(attention, questions, attention.remember(frames, VALID))
    contexts.square().sum().backward()
    assert questions.grad is not None
    assert frames.grad is not None
    assert (questions.grad[:, LENGTHS > 1] != 0).all()
    assert (frames.grad[VALID] != 0).all()
    assert (frames.grad[~VALID] == 0).all()
    idle = [name for name, weight in attention.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


@torch.no_grad()
@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("single", [torch.float32, torch.bfloat16])
def test_under_bfloat16_autocast_it_gives_nearly_the_same(kind, single):
    attention, questions, frames = made(kind)
    exact = steps(attention, questions, attention.remember(frames, VALID))
    attention, frames = attention.float(), frames.to(single)
    with torch.autocast("cpu", torch.bfloat16):
        rough = steps(attention, questions.float(), attention.remember(frames, VALID))
    if kind == "windowed, narrow":  # a peak may tip over
        assert rough[0].isfinite().all()
        return
    for ours, theirs in zip(rough, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=0.05)


def test_every_kind_is_tested_and_a_state_is_declared():
    assert {config.kind for config in SMALL.values()} == set(KINDS) == set(CONFIGS)
    assert {name: config.__dataclass_fields__["kind"].default for name, config in CONFIGS.items()} == {
        name: name for name in CONFIGS
    }
    for kind in SMALL:
        attention, questions, frames = made(kind)
        memory = attention.remember(frames, VALID)
        start = attention.start(memory, 2)
        after = attention(questions[0], memory, start)[2]
        assert attention.keeps_state == (start.shape[2] > 0)
        assert after.dtype == start.dtype
        assert after.shape == start.shape


@torch.no_grad()
@pytest.mark.parametrize("kind", [kind for kind in SMALL if not made(kind)[0].keeps_state])
def test_without_state_all_questions_may_be_asked_at_once(kind):
    attention, questions, frames = made(kind)
    memory = attention.remember(frames, VALID)
    together = attention(questions.permute(1, 0, 2, 3).flatten(1, 2), memory, attention.start(memory, 1))
    for ours, theirs in zip(together[:2], steps(attention, questions, memory), strict=True):
        close(ours, theirs.transpose(0, 1).flatten(1, 2))


def parameters(kind: str) -> int:
    """As the table in las/model/attention.py says, at D = 5, H = 6, A = 4, C = 2, k = 3, n = 2, M = 2."""
    add = (5 + 6 + 2) * 4
    return {
        "content": add, "dot": 5 * 6, "scaled_dot": 5 * 6, "general": 5 * 6, "additive": add, "location_base": 5 * 7,
        "location": add + 2 * 4 + 2 * 3, "coverage": add + 4, "windowed": add, "windowed, narrow": add,
        "multi_head": (5 + 3 * 6) * 4 + 6, "multi_head, additive": (5 + 3 * 6 + 2) * 4 + 6,
        "gmm": (5 + 1 + 3 * 2) * 4 + 3 * 2, "hierarchical": 2 * add,
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_parameters_are_those_of_the_table(kind):
    assert sum(weight.numel() for weight in made(kind)[0].parameters()) == parameters(kind)


def test_dot_by_eye():
    frames = torch.tensor([[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    question = torch.tensor([[[2 * math.log(3), 0.0, 0.0, 0.0]]])
    for kind, config, nine in ((DotAttention, DotConfig(), 9.0), (ScaledDotAttention, ScaledDotConfig(), 3.0)):
        attention = kind(config, 4, 4)
        assert list(attention.parameters()) == []
        memory = attention.remember(frames, torch.tensor([[True, True, False]]))
        _, weights, _ = attention(question, memory, attention.start(memory, 1))
        torch.testing.assert_close(weights, torch.tensor([[[nine, 1.0, 0.0]]]) / (nine + 1))


@torch.no_grad()
@pytest.mark.parametrize("cached", [1 << 20, 24, 1])  # all frames at a time, three, one
def test_general_and_additive_equal_their_formulas_frame_by_frame(cached, monkeypatch):
    monkeypatch.setattr(additive_energy, "CACHED", cached)
    for kind in ("general", "additive"):
        attention, questions, frames = made(kind)
        _, weights = steps(attention, questions, attention.remember(frames, VALID))
        for row, length in enumerate(LENGTHS.tolist()):
            question, energies = questions[0, row, 0], []
            for frame in frames[row, :length]:
                if kind == "general":
                    energies.append(question @ attention.key.weight @ frame)
                else:
                    mixed = attention.query.weight @ question + attention.key.weight @ frame + attention.key.bias
                    energies.append(attention.energy.weight[0] @ mixed.tanh())
            close(weights[0, row, 0, :length], torch.stack(energies).softmax(0))


def test_location_base_by_eye_and_its_limit():
    attention = LocationBaseAttention(LocationBaseConfig(longest=4), speller_width=1, frame_width=1)
    attention.place.weight.data = torch.tensor([[0.0], [math.log(3)], [50.0], [99.0]])
    memory = attention.remember(torch.ones(1, 3, 1), torch.tensor([[True, True, False]]))
    _, weights, _ = attention(torch.ones(1, 1, 1), memory, attention.start(memory, 1))
    torch.testing.assert_close(weights, torch.tensor([[[0.25, 0.75, 0.0]]]))
    with pytest.raises(UserError, match=r"an utterance has 5 listener frames, attention.longest is 4: raise it"):
        attention.remember(torch.ones(1, 5, 1), torch.ones(1, 5, dtype=torch.bool))


def test_coverage_by_eye():
    """Equal frames; what was read is not read again."""
    attention = CoverageAttention(CoverageConfig(width=1), speller_width=1, frame_width=1)
    for weight in attention.parameters():
        torch.nn.init.zeros_(weight)
    attention.covered.weight.data.fill_(-9.0)
    attention.energy.weight.data.fill_(1000.0)
    memory = attention.remember(torch.ones(1, 4, 1), torch.tensor([[True, True, True, False]]))
    _, weights, seen = attention(torch.zeros(1, 2, 1), memory, torch.tensor([[[1.0, 0, 0, 0], [1.0, 0, 1, 0]]]))
    torch.testing.assert_close(weights, torch.tensor([[[0, 0.5, 0.5, 0], [0, 1.0, 0, 0]]]))
    torch.testing.assert_close(seen, torch.tensor([[[1, 0.5, 0.5, 0], [1.0, 1, 1, 0]]]))


def test_windowed_by_eye():
    """Later frames are liked better: the peak moves by the window at each step, and stays at the last real frame."""
    attention = WindowedAttention(WindowedConfig(width=1, window=2), speller_width=1, frame_width=1)
    for weight in attention.parameters():
        torch.nn.init.zeros_(weight)
    attention.key.weight.data.fill_(0.1)
    attention.energy.weight.data.fill_(2000.0)
    frames = torch.arange(7.0).view(1, 7, 1)
    memory = attention.remember(frames, torch.tensor([[True] * 6 + [False]]))
    state, peaks = attention.start(memory, 1), []
    for _ in range(4):
        context, weights, state = attention(torch.zeros(1, 1, 1), memory, state)
        peaks.append(weights.argmax().item())
        torch.testing.assert_close(context.squeeze(), torch.tensor(float(peaks[-1])))
    assert peaks == [2, 4, 5, 5]
    even = WindowedAttention(WindowedConfig(width=1, window=1), 1, 1)
    torch.nn.init.zeros_(even.energy.weight)
    memory = even.remember(frames, torch.tensor([[True] * 6 + [False]]))
    _, weights, _ = even(torch.zeros(1, 3, 1), memory, torch.tensor([[[0], [3], [5]]]))
    expected = torch.tensor([[3, 3, 0, 0, 0, 0, 0], [0, 0, 2, 2, 2, 0, 0], [0, 0, 0, 0, 3, 3, 0]]) / 6
    torch.testing.assert_close(weights[0], expected)


def test_multi_head_by_eye():
    """Two heads look at two places; each takes its half of what lies there."""
    attention = MultiHeadAttention(MultiHeadConfig(width=2, heads=2), speller_width=2, frame_width=2)
    for linear in (attention.query, attention.key, attention.value, attention.join):
        torch.nn.init.eye_(linear.weight)
    torch.nn.init.zeros_(attention.join.bias)
    memory = attention.remember(torch.tensor([[[5.0, 0.0], [0.0, 7.0]]]), torch.ones(1, 2, dtype=torch.bool))
    context, weights, _ = attention(torch.tensor([[[99.0, 99.0]]]), memory, attention.start(memory, 1))
    torch.testing.assert_close(weights, torch.tensor([[[0.5, 0.5]]]))
    torch.testing.assert_close(context, torch.tensor([[[5.0, 7.0]]]))


def test_one_additive_head_is_additive_attention():
    torch.manual_seed(0)
    many = MultiHeadAttention(MultiHeadConfig(width=4, heads=1, energy="additive"), 5, 6).double()
    one = AdditiveAttention(AdditiveConfig(width=4), 5, 6).double()
    one.load_state_dict(
        {**one.state_dict(), **many.query.state_dict(prefix="query."), **many.key.state_dict(prefix="key.")}
    )
    assert many.energy is not None
    one.energy.weight.data = many.energy.data
    _, questions, frames = made("additive")
    ours, theirs = (steps(each, questions, each.remember(frames, VALID))[1] for each in (many, one))
    close(ours, theirs)


def test_gmm_by_eye():
    """One narrow Gaussian goes on by two frames at each step and leaves at the end; between two frames it halves."""
    attention = GmmAttention(GmmConfig(width=1, mixtures=1), speller_width=1, frame_width=1)
    torch.nn.init.zeros_(attention.mixture.weight)
    attention.mixture.bias.data = torch.tensor([0.0, math.log(math.expm1(2.0)), -99.0])
    memory = attention.remember(torch.arange(6.0).view(1, 6, 1), torch.tensor([[True] * 5 + [False]]))
    state, found = attention.start(memory, 1), []
    for _ in range(3):
        context, weights, state = attention(torch.zeros(1, 1, 1), memory, state)
        found.append(weights[0, 0])
        torch.testing.assert_close(context.item(), (weights[0, 0] @ torch.arange(6.0)).item())
    expected = torch.stack([torch.eye(6)[2], torch.eye(6)[4], torch.zeros(6)])
    torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-5)
    _, weights, _ = attention(torch.zeros(1, 1, 1), memory, torch.full((1, 1, 1), -0.5))
    torch.testing.assert_close(weights[0, 0], torch.tensor([0, 0.5, 0.5, 0, 0, 0]), rtol=0, atol=1e-5)


def test_gmm_starts_wide_and_slow():
    attention = GmmAttention(GmmConfig(width=4, mixtures=3), speller_width=2, frame_width=1)
    shares, moves, deviations = torch.nn.functional.softplus(attention.mixture.bias).chunk(3)
    assert shares.allclose(shares[0])
    assert moves.allclose(torch.ones(3))
    assert deviations.allclose(torch.full((3,), 10.0))


def test_hierarchical_by_eye():
    """Two segments of two frames and one of one: all alike, segments share alike, and frames within them."""
    attention = HierarchicalAttention(HierarchicalConfig(width=1, segment=2), speller_width=1, frame_width=1)
    for weight in attention.parameters():
        torch.nn.init.zeros_(weight)
    memory = attention.remember(torch.ones(1, 7, 1), torch.tensor([[True] * 5 + [False] * 2]))
    _, weights, _ = attention(torch.zeros(1, 1, 1), memory, attention.start(memory, 1))
    torch.testing.assert_close(weights[0, 0], torch.tensor([1, 1, 1, 1, 2, 0, 0]) / 6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContentConfig("loction"), "attention.kind 'loction': a ContentConfig is of kind 'content'"),
        (lambda: ContentConfig(width=0), r"attention.width 0 must be at least 1 \(attention.kind content\)"),
        (lambda: LocationConfig(channels=0), "attention.channels 0 must be at least 1"),
        (lambda: LocationConfig(kernel=30), "attention.kernel 30 must be odd"),
        (lambda: LocationConfig(kernel=-1), "attention.kernel -1 must be at least 1"),
        (lambda: LocationBaseConfig(longest=0), "attention.longest 0 must be at least 1"),
        (lambda: WindowedConfig(window=0), "attention.window 0 must be at least 1"),
        (lambda: MultiHeadConfig(heads=3), "attention.heads 3 do not divide attention.width 256"),
        (lambda: MultiHeadConfig(heads=0), "attention.heads 0 must be at least 1"),
        (lambda: MultiHeadConfig(energy="cosine"), "attention.energy 'cosine': wanted one of dot, additive"),
        (lambda: GmmConfig(mixtures=0), "attention.mixtures 0 must be at least 1"),
        (lambda: HierarchicalConfig(segment=0), "attention.segment 0 must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
