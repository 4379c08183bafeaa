"""One step for training and search: teacher-forced equals unrolled, for any number of layers and beams."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from las.errors import UserError
from las.model.attention import CONFIGS, KINDS
from las.model.attention_history import LocationConfig
from las.model.attention_parts import HierarchicalConfig
from las.model.masking import valid_frames
from las.model.memory import Memory
from las.model.speller import Speller, SpellerConfig, SpellerState, cell_step, summarise

LENGTHS = torch.tensor([6, 1, 4])
TOKENS = torch.tensor([[2, 4, 5, 5, 6], [2, 7, 4, 0, 0], [2, 4, 4, 6, 0]])
CONFIG = SpellerConfig(width=6, embedding=3, dropout=0.5, attention=LocationConfig(width=4, kernel=3, channels=2))
ATTENTIONS = {kind: CONFIGS[kind](kind) for kind in KINDS} | {"hierarchical": HierarchicalConfig(width=4, segment=2)}
DECODERS = {f"fed lstm, {kind}": replace(CONFIG, attention=ATTENTIONS[kind]) for kind in KINDS}
DECODERS |= {
    "fed lstm, 3 layers": replace(CONFIG, layers=3),
    "fed gru": replace(CONFIG, cell="gru"),
    "fed gru, 2 layers": replace(CONFIG, cell="gru", layers=2, attention=ATTENTIONS["additive"]),
}
for cell in ("lstm", "gru"):
    for layers in (1, 2):
        words = f"{cell}, {layers} layers"
        DECODERS |= {
            f"initial, {words}": replace(CONFIG, context="initial", cell=cell, layers=layers),
            f"every_step, {words}": replace(CONFIG, context="every_step", cell=cell, layers=layers),
            f"unfed, location, {words}": replace(CONFIG, input_feeding=False, cell=cell, layers=layers),
        }
        DECODERS |= {
            f"unfed, {kind}, {words}": replace(
                CONFIG, input_feeding=False, cell=cell, layers=layers, attention=ATTENTIONS[kind]
            )
            for kind in (KINDS if (cell, layers) == ("lstm", 1) else ("general", "additive"))
        }


def speller_and_memory(config: SpellerConfig = CONFIG) -> tuple[Speller, Memory]:
    torch.manual_seed(config.layers)
    speller = Speller(config, frame_width=5, vocabulary=8).double().eval()
    for weight in speller.parameters():
        nn.init.normal_(weight, std=0.5)
    valid = valid_frames(LENGTHS, 6)
    frames = torch.randn(3, 6, 5).double() * valid.unsqueeze(2)
    return speller, speller.remember(frames, valid)


def unrolled(speller: Speller, tokens: Tensor, memory: Memory) -> tuple[Tensor, SpellerState]:
    """Logits of the steps over tokens (B, K, L), and the state after the last."""
    state = speller.start(memory, tokens.shape[1])
    logits = []
    for step in tokens.unbind(2):
        one, state = speller.step(step, state, memory)
        logits.append(one)
    return torch.stack(logits, 2), state


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
def test_teacher_forced_equals_unrolled_steps(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    logits, weights = speller(TOKENS, memory)
    assert logits.shape == (3, 5, 8)
    state = speller.start(memory)
    for place in range(TOKENS.shape[1]):
        one, state = speller.step(TOKENS[:, place : place + 1], state, memory)
        torch.testing.assert_close(one[:, 0], logits[:, place], rtol=0, atol=1e-9)
        torch.testing.assert_close(state.weights[:, 0], weights[:, place], rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
def test_beams_are_spelled_as_if_each_were_alone(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    beams = torch.stack([TOKENS, TOKENS.flip(1)], 1)  # (B, 2, L)
    together, _ = unrolled(speller, beams, memory)
    apart = torch.cat([unrolled(speller, beams[:, place : place + 1], memory)[0] for place in range(2)], 1)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
def test_select_takes_each_beam_with_its_whole_past(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    beams = torch.stack([TOKENS, TOKENS.flip(1), TOKENS.roll(1, 1)], 1)  # (B, 3, L)
    utterances = torch.tensor([0, 2])
    parents = torch.tensor([[2, 2, 0, 1], [1, 0, 0, 2]])
    _, state = unrolled(speller, beams, memory)
    following = torch.tensor([[4, 5, 6, 7], [7, 7, 4, 5]])
    ours, _ = speller.step(following, state.select(utterances, parents), memory.select(utterances))
    pasts = torch.cat([beams[utterances.unsqueeze(1), parents], following.unsqueeze(2)], 2)
    theirs, _ = unrolled(speller, pasts, memory.select(utterances))
    torch.testing.assert_close(ours, theirs[:, :, -1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("feeding", [True, False])
def test_a_step_depends_on_the_last_context_where_it_is_fed(feeding, cell):
    speller, memory = speller_and_memory(replace(CONFIG, input_feeding=feeding, cell=cell))
    start = speller.start(memory)
    fed = replace(start, context=start.context + 1)
    first, second = (speller.step(TOKENS[:, :1], state, memory)[0] for state in (start, fed))
    assert ((first - second).abs() > 1e-6).all() == feeding
    assert torch.equal(first, second) != feeding


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_the_lstm_written_out_is_that_of_torch(layers):
    """Where the fed context has no weight, input feeding changes nothing: the same weights give the same logits."""
    fed, memory = speller_and_memory(replace(CONFIG, layers=layers))
    plain, _ = speller_and_memory(replace(CONFIG, layers=layers, input_feeding=False))
    plain.load_state_dict(
        {**plain.state_dict(), **{name: v for name, v in fed.state_dict().items() if "rec" not in name}}, strict=False
    )
    for layer, linear in enumerate(fed.recurrent):
        below = 5 if layer == 0 else 6
        if layer == 0:
            linear.weight[:, :below] = 0.0
        read = fed.from_token.weight if layer == 0 else linear.weight[:, :below]
        bias = fed.from_token.bias if layer == 0 else linear.bias
        getattr(plain.rnn, f"weight_ih_l{layer}").copy_(read)
        getattr(plain.rnn, f"weight_hh_l{layer}").copy_(linear.weight[:, below:])
        getattr(plain.rnn, f"bias_ih_l{layer}").copy_(bias)
        getattr(plain.rnn, f"bias_hh_l{layer}").zero_()
    torch.testing.assert_close(fed(TOKENS, memory)[0], plain(TOKENS, memory)[0], rtol=0, atol=1e-9)


def test_the_names_of_the_weights_stay():
    """Models are saved with them."""
    speller, _ = speller_and_memory(replace(CONFIG, layers=2))
    assert sorted(speller.state_dict()) == [
        "attention.energy.weight", "attention.key.bias", "attention.key.weight", "attention.location.weight",
        "attention.place.weight", "attention.query.weight", "embedding.weight", "from_token.bias", "from_token.weight",
        "hidden.bias", "hidden.weight", "output.bias", "output.weight", "recurrent.0.weight", "recurrent.1.bias",
        "recurrent.1.weight",
    ]  # fmt: skip


def test_the_summary_is_each_direction_after_its_last_frame():
    frames = torch.arange(12.0).view(1, 3, 4).expand(2, -1, -1)
    assert summarise(frames, torch.tensor([[True, True, True], [True, True, False]])).tolist() == [
        [8.0, 9.0, 2.0, 3.0],
        [4.0, 5.0, 2.0, 3.0],
    ]


@torch.no_grad()
@pytest.mark.parametrize("context", ["initial", "every_step"])
def test_without_attention_nowhere_is_looked_at_and_only_the_summary_counts(context):
    speller, memory = speller_and_memory(replace(CONFIG, context=context))
    logits, weights = speller(TOKENS, memory)
    assert weights.shape == (3, 5, 6)
    assert not weights.any()
    assert not [name for name in speller.state_dict() if name.startswith("attention")]
    valid = memory.hidden.squeeze(1) == 0
    between = memory.frames.clone()
    between[0, 1:5] += 1.0
    between[0, 0, :2] += 1.0
    between[0, 5, 2:] += 1.0
    assert torch.equal(speller(TOKENS, speller.remember(between, valid))[0], logits)
    between[0, 5, 0] += 1.0
    changed = (speller(TOKENS, speller.remember(between, valid))[0] != logits).flatten(1).any(1)
    assert changed.tolist() == [True, False, False]


@torch.no_grad()
def test_a_fixed_context_enters_every_step_and_an_initial_one_only_the_state():
    for context, enters in (("every_step", True), ("initial", False)):
        speller, memory = speller_and_memory(replace(CONFIG, context=context))
        start = speller.start(memory)
        other = replace(start, context=start.context + 1)
        first, second = (speller.step(TOKENS[:, :1], state, memory) for state in (start, other))
        assert torch.equal(first[0], second[0]) != enters
        assert torch.equal(first[1].context, start.context)
        assert start.context.shape == (3, 1, 5 if enters else 0)


@pytest.mark.parametrize("decoder", DECODERS)
def test_bfloat16_autocast_trains(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    speller = speller.float().train()
    valid = memory.hidden.squeeze(1) == 0
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = speller(TOKENS, speller.remember(memory.frames.float(), valid))
        step, _ = speller.step(
            TOKENS[:, :1], speller.start(memory_of := speller.remember(memory.frames.float(), valid)), memory_of
        )
    assert step.isfinite().all()
    logits.float().square().sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in speller.parameters())


def test_cell_step_is_that_of_torch():
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 4).double()
    read, output, memory = torch.randn(2, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    gates = nn.functional.linear(read, cell.weight_ih, cell.bias_ih)
    gates = gates + nn.functional.linear(output, cell.weight_hh, cell.bias_hh)
    for ours, theirs in zip(cell_step(gates, memory), cell(read, (output, memory)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decoder", DECODERS)
def test_dropout_in_training_only(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    assert torch.equal(speller(TOKENS, memory)[0], speller(TOKENS, memory)[0])
    speller.train()
    assert not torch.equal(speller(TOKENS, memory)[0], speller(TOKENS, memory)[0])


def test_dropout_is_drawn_for_what_is_used():
    """Once for the embeddings, once between each two layers at each step, once before the output."""
    speller, memory = speller_and_memory(replace(CONFIG, layers=3))
    drawn = []
    speller.dropout.register_forward_hook(lambda *_: drawn.append(1))
    speller(TOKENS, memory)
    assert len(drawn) == 1 + 2 * TOKENS.shape[1] + 1


def test_dropout_sets_its_share_to_zero_and_the_rest_is_louder():
    speller, memory = speller_and_memory(replace(CONFIG, layers=3, dropout=0.25, width=400))
    seen = []
    speller.dropout.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    speller.train()(TOKENS, memory)
    assert {before.shape[-1] for before, _ in seen} == {3, 400}  # embeddings, and all that is as wide as the layers
    before, after = (torch.cat([pair[part].flatten() for pair in seen]) for part in (0, 1))
    torch.testing.assert_close(after, torch.where(after == 0, 0.0, before / 0.75))
    assert (after == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_torchs_rnn_drops_between_its_layers(layers, cell):
    """With the other dropouts silenced only what passes from layer to layer is left to chance."""
    speller, memory = speller_and_memory(replace(CONFIG, input_feeding=False, cell=cell, layers=layers))
    speller.train().dropout.p = 0.0
    assert torch.equal(speller(TOKENS, memory)[0], speller(TOKENS, memory)[0]) == (layers == 1)


@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_reach_every_weight(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    speller(TOKENS, speller.remember(memory.frames, memory.hidden.squeeze(1) == 0))[0].square().sum().backward()
    unmoved = [name for name, weight in speller.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in unmoved if not name.endswith("key.bias")] == []


# -------------------------------------------------------------------------------------------------- scheduled sampling


def certain(speller: Speller) -> Speller:
    """The same, as good as sure of every next token: what it draws is what is most likely."""
    speller.output.weight.data *= 1e6
    speller.output.bias.data *= 1e6
    return speller


@torch.no_grad()
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_speller_that_always_reads_itself_reads_what_it_says(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    certain(speller)
    state, token, own = speller.start(memory), TOKENS[:, :1], []
    for _ in range(TOKENS.shape[1]):
        own.append(token)
        logits, state = speller.step(token, state, memory)
        token = logits.argmax(-1)
    said = torch.cat(own, 1)
    assert not torch.equal(said, TOKENS)
    for ours, theirs in zip(speller(TOKENS, memory, sampled=1.0), speller(said, memory), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["fed lstm, content", "unfed, additive, lstm, 1 layers", "initial, gru, 2 layers"])
def test_drawn_tokens_come_as_often_as_the_speller_says(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    speller.output.weight.zero_()
    shares = torch.tensor([0, 0.5, 0, 0.3, 0, 0.2, 0, 0], dtype=torch.float64)
    speller.output.bias.copy_(shares.log())
    read = reading(speller)
    tokens = torch.full((3, 2000), 7)
    speller(tokens, memory, sampled=0.25)
    found = torch.cat(read, 1)
    assert found.shape == tokens.shape
    assert (found[:, 0] == 7).all()  # the begin of the sentence stays
    drawn = found[found != 7]
    assert len(drawn) / 6000 == pytest.approx(0.25, abs=0.02)  # deviation .0056
    torch.testing.assert_close(drawn.bincount(minlength=8) / len(drawn), shares.float(), rtol=0, atol=0.04)
    assert len({tuple(row) for row in (found != 7).tolist()}) == 3  # each row by itself


def reading(speller: Speller) -> list[Tensor]:
    """The tokens that are read from now on, step by step."""
    read: list[Tensor] = []
    speller.embedding.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    return read


@torch.no_grad()
def test_a_long_utterance_is_sampled_in_step_with_its_tokens():
    """What is read at a step is drawn from the step before it: with logits that name the place, one sees which."""
    speller, memory = speller_and_memory(replace(CONFIG, context="initial"))
    place = iter(range(100))
    speller._distribution = lambda outputs, contexts: torch.eye(8)[next(place) % 8].mul(1e6).expand(3, 1, 8)
    read = reading(speller)
    speller(TOKENS, memory, sampled=1.0)
    assert torch.cat(read, 1).tolist() == [[2, 0, 1, 2, 3]] * 3


@pytest.mark.parametrize("decoder", DECODERS)
def test_nothing_is_drawn_where_nothing_is_sampled(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    before = torch.get_rng_state()
    for ours, theirs in zip(speller(TOKENS, memory, sampled=0.0), speller(TOKENS, memory), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_pass_through_sampled_steps_as_through_the_tokens_read(decoder):
    """Not through the choice: the gradient is that of the same tokens read from a transcript."""
    speller, memory = speller_and_memory(DECODERS[decoder])
    valid = memory.hidden.squeeze(1) == 0
    read = reading(speller)
    gradients = []
    for sampled in (0.7, 0.0):
        tokens = TOKENS if sampled else torch.cat(read, 1)
        speller.zero_grad()
        speller(tokens, speller.remember(memory.frames, valid), sampled)[0].square().sum().backward()
        gradients.append({name: weight.grad for name, weight in speller.named_parameters()})
    assert not torch.equal(tokens, TOKENS)
    for name, ours in gradients[0].items():
        torch.testing.assert_close(ours, gradients[1][name], rtol=1e-7, atol=1e-9, msg=name)


def test_the_seed_decides_what_is_drawn_and_dropout_works_beside_it():
    speller, memory = speller_and_memory(replace(CONFIG, dropout=0.2))
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(speller.train()(TOKENS, memory, sampled=0.5)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "decoder", ["fed lstm, location", "unfed, additive, lstm, 1 layers", "every_step, gru, 2 layers"]
)
def test_sampling_trains_in_bfloat16(decoder):
    speller, memory = speller_and_memory(DECODERS[decoder])
    speller = speller.float().train()
    with torch.autocast("cpu", torch.bfloat16):
        memory = speller.remember(memory.frames.float(), memory.hidden.squeeze(1) == 0)
        logits, _ = speller(TOKENS, memory, sampled=0.5)
    logits.float().square().sum().backward()
    unmoved = [name for name, weight in speller.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in unmoved if not name.endswith("key.bias")] == []


@torch.no_grad()
def test_logits_that_are_not_numbers_come_out_as_such():
    """So that the loss can say which utterances they are of."""
    speller, memory = speller_and_memory()
    speller.output.bias[0] = float("nan")
    assert speller(TOKENS, memory, sampled=1.0)[0].isnan().any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "width, layers and embedding must be at least 1"),
        ({"width": 0}, "width, layers and embedding must be at least 1"),
        ({"cell": "rnn"}, "speller.cell 'rnn': wanted one of lstm, gru"),
        ({"context": "last"}, "speller.context 'last': wanted one of attention, every_step, initial"),
        ({"dropout": -0.1}, r"speller.dropout -0\.1 must be at least 0 and below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SpellerConfig(**settings)
