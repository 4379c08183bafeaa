"""Expected word errors against enumeration: two tokens, at most three of them, so that all sentences can be counted."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from las.batch import Batch
from las.errors import UserError
from las.model.frontend import FrontendConfig
from las.model.las import LAS, Listened, ModelConfig
from las.model.listener import ListenerConfig
from las.model.masking import valid_frames
from las.model.speller import SpellerConfig
from las.search.beam import Hypothesis, SearchConfig
from las.text.alignment import align
from las.text.tokenizer import BOS, EOS
from las.train.mwer import Mwer, MwerConfig
from las.transcribe.recognizer import Recognizer

A, B = 4, 5  # the tokens
REFERENCES = ((A, B), (B,))
FRAMES = (3, 2)  # and so many tokens at most


def count(reference, hypothesis):
    return align(*(" ".join("ab"[token - A] for token in ids) for ids in (reference, hypothesis))).counts.errors


def toy(dtype=torch.float64, dropout=0.0, **speller):
    """A model of two tokens and two utterances that it has listened to."""
    torch.manual_seed(1)
    config = ModelConfig(
        FrontendConfig(sample_rate=8000),
        listener=ListenerConfig(width=3, reduce=(1,)),
        speller=SpellerConfig(width=5, embedding=3, dropout=dropout, **speller),
    )
    model = LAS(config, vocabulary=6).to(dtype).train()
    torch.nn.init.normal_(model.speller.output.weight, std=2.0)  # so that sentences differ in probability
    lengths = torch.tensor(FRAMES)
    valid = valid_frames(lengths, 3)
    frames = (torch.randn(2, 3, 6, dtype=dtype) * valid.unsqueeze(2)).requires_grad_()
    batch = Batch(["one", "other"], torch.zeros(2, 1), lengths, torch.tensor([[A, B], [B, 0]]), torch.tensor([2, 1]))
    return model, Listened(frames, lengths, valid), batch


def searched(model, hypotheses, **settings):
    """MWER training with the project's own search; 16 hypotheses hold all sentences of at most three tokens."""
    recognizer = Recognizer(model, None, SearchConfig())
    config = SearchConfig(beam=hypotheses, **{"ctc_weight": 0.0, **settings})
    return Mwer(lambda listened: recognizer.spell([listened], config, hypotheses), count, BOS, EOS)


def given(*found):
    """MWER training with these hypotheses for each utterance."""
    hypotheses = [[Hypothesis(tokens, 0.0, 0.0, True) for tokens in utterance] for utterance in found]
    return Mwer(lambda listened: hypotheses, count, BOS, EOS)


def sentences(at_most):
    return [tokens for length in range(at_most + 1) for tokens in product((A, B), repeat=length)]


def by_enumeration(model, listened):
    """The expected word errors of all sentences there are, each spelt step by step."""
    errors = 0.0
    for row, reference in enumerate(REFERENCES):
        memory = model.remember(listened).select(torch.tensor([row]))
        probabilities, wrong = [], []
        for tokens in sentences(FRAMES[row]):
            state, probability = model.speller.start(memory), 1.0
            for last, following in zip((BOS, *tokens), (*tokens, EOS), strict=True):
                logits, state = model.speller.step(torch.tensor([[last]]), state, memory)
                probability = probability * logits.softmax(-1)[0, 0, following]
            probabilities.append(probability)
            wrong.append(count(reference, tokens))
        shares = torch.stack(probabilities)
        errors = errors + (shares * torch.tensor(wrong)).sum() / shares.sum()
    return errors


def gradients(model, listened, value):
    """Of a value, by the speller's weights and the frames, as one vector; what it does not hang on has 0."""
    weights = [*model.speller.parameters(), listened.frames]
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return torch.cat([
        (torch.zeros_like(weight) if grad is None else grad).flatten()
        for weight, grad in zip(weights, found, strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize("speller", [{}, {"input_feeding": False}, {"context": "every_step", "cell": "gru"}])
def test_an_n_best_of_all_sentences_gives_the_gradient_of_the_exact_expected_errors(speller):
    model, listened, batch = toy(**speller)
    mwer = searched(model, 16)
    with torch.no_grad():
        nbest = mwer.search(listened)
    assert [{one.tokens for one in found} for found in nbest] == [set(sentences(longest)) for longest in FRAMES]
    found = mwer(model, listened, batch)
    exact = by_enumeration(model, listened)
    torch.testing.assert_close(found.errors, exact.detach(), rtol=0, atol=1e-12)
    ours = gradients(model, listened, found.loss)
    assert ours.norm() > 0.1
    torch.testing.assert_close(ours, gradients(model, listened, exact), rtol=0, atol=1e-12)
    # and by differences: the expected errors a little way along the gradient and back
    way, step = ours / ours.norm(), 1e-5
    places = [*model.speller.parameters(), listened.frames]
    parts = way.split([place.numel() for place in places])
    sides = []
    with torch.no_grad():
        for side in (step, -2 * step):
            for place, part in zip(places, parts, strict=True):
                place.add_(part.view_as(place), alpha=side)
            sides.append(by_enumeration(model, listened))
    assert (sides[0] - sides[1]).item() / (2 * step) == pytest.approx(ours.norm().item(), rel=1e-7)


def test_two_hypotheses_by_hand():
    model, listened, batch = toy()
    found = given([(A, B), (B,)], [])(model, listened, batch)  # 0 and 1 errors; the empty transcript has 1
    memory = model.remember(listened).select(torch.tensor([0]))
    logs = []
    for tokens in ((A, B), (B,)):
        logits = model.speller(torch.tensor([[BOS, *tokens]]), memory)[0].log_softmax(-1)
        logs.append(sum(logits[0, place, token] for place, token in enumerate((*tokens, EOS))))
    wrong = (logs[1] - logs[0]).sigmoid()
    assert found.errors.item() == pytest.approx(1 + wrong.item(), abs=1e-12)
    assert found.loss.item() == pytest.approx(wrong.item() - 0.5, abs=1e-12)


@pytest.mark.parametrize(("found", "errors"), [
    (([], []), 2 + 1),  # read as empty
    (([(A, B)], [(A, A)]), 0 + 2),
    (([(A,), (B,)], []), 1 + 1),  # the same errors, whichever is right
])  # fmt: skip
def test_where_nothing_hangs_on_probabilities_there_is_no_gradient(found, errors):
    model, listened, batch = toy()
    expectation = given(*found)(model, listened, batch)
    assert expectation.errors.item() == errors
    assert expectation.loss.item() == 0
    assert not expectation.loss.requires_grad


def test_together_is_one_after_the_other():
    model, listened, batch = toy()
    lists = ([(A, B), (B, A, A), ()], [(B,), (A, B)])
    together = given(*lists)(model, listened, batch)
    alone = [given(*rows)(model, listened, batch) for rows in ((lists[0], [(B,)]), ([(A, B)], lists[1]))]
    assert together.loss.item() == pytest.approx(sum(one.loss.item() for one in alone), abs=1e-12)
    torch.testing.assert_close(
        gradients(model, listened, together.loss),
        sum(gradients(model, listened, one.loss) for one in alone),
        rtol=0,
        atol=1e-12,
    )


def test_training_lowers_the_expected_errors():
    model, listened, batch = toy(torch.float32)
    mwer = searched(model, 16)
    optimizer = torch.optim.Adam(model.speller.parameters(), lr=0.05)
    errors = []
    for _ in range(25):
        optimizer.zero_grad()
        expectation = mwer(model, listened, batch)
        expectation.loss.backward()
        optimizer.step()
        errors.append(expectation.errors.item())
    assert errors[0] > 2  # of 3 words
    assert errors[-1] < 0.2


def test_search_is_in_evaluation_mode_without_gradient_and_training_goes_on_after_it():
    model, listened, batch = toy(dropout=0.5)
    seen = []

    def search(frames):
        seen.append((model.training, model.speller.training, torch.is_grad_enabled()))
        if len(seen) == 2:
            raise UserError("broken")
        return [[], []]

    mwer = Mwer(search, count, BOS, EOS)
    mwer(model, listened, batch)
    with pytest.raises(UserError, match="broken"):
        mwer(model, listened, batch)
    assert seen == [(False, False, False)] * 2
    assert model.training
    assert model.speller.training


def test_in_bf16_every_weight_gets_its_gradient():
    """Also those that autocast had in hand, without gradient, while search ran."""
    found = []
    for precise in (True, False):
        model, listened, batch = toy(torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            loss = searched(model, 16)(model, listened, batch).loss
        found.append(gradients(model, listened, loss))
    assert torch.cosine_similarity(*found, dim=0) > 0.99
    assert found[1].norm().item() == pytest.approx(found[0].norm().item(), rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hypotheses": 1}, "mwer.hypotheses 1: errors are compared between at least 2; 0 is off"),
        ({"hypotheses": -4}, "mwer.hypotheses -4"),
        ({"objective_weight": -0.1}, r"mwer.objective_weight -0\.1 must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MwerConfig(**settings)
