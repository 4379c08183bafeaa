"""Tokens in files: every sentence comes once an epoch, in an order that is drawn, and resumed where it stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las.data import token_store
from las.data.token_store import TokenStore, write_store
from las.errors import UserError
from las.text.tokenizer import BLANK, BOS, EOS, Tokenizer, train_model

TOKENIZER = Tokenizer(train_model(["abc def"], 50, "char"))


def rows(batches):
    """Inputs and targets without padding, sorted."""
    found = []
    for batch in batches:
        for read, follows in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            length = len([token for token in follows if token != BLANK])
            assert set(read[length:] + follows[length:]) <= {BLANK}
            found.append((tuple(read[:length]), tuple(follows[:length])))
    return sorted(found)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text("abc ", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=600),
    st.integers(1, 90),
    st.sampled_from([0, 1, 300]),
)
def test_an_epoch_is_every_sentence_once(tmp_path_factory, sentences, size, pool):
    sentences = [" ".join(sentence.split()) for sentence in sentences]
    store = write_store(tmp_path_factory.mktemp("store") / "s", sentences, TOKENIZER, 1000)
    batches = list(store.batches(size, pool=pool, seed=(3, 4)))
    expected = [[*TOKENIZER.encode(sentence), EOS] for sentence in sentences]
    assert rows(batches) == sorted(((BOS, *ids[:-1]), tuple(ids)) for ids in expected)
    assert all(batch.inputs.numel() <= size or len(batch.inputs) == 1 for batch in batches)
    again = list(TokenStore(store.tokens.filename.parent).batches(size, 2, pool, (3, 4)))
    assert len(again) == max(0, len(batches) - 2)
    assert all(torch.equal(one.targets, other.targets) for one, other in zip(batches[2:], again, strict=True))


def test_seeds_draw_other_orders_and_no_pool_keeps_it(tmp_path):
    store = write_store(tmp_path / "s", ["abc", "fed"] * 500, TOKENIZER, 1000)
    orders = [np.concatenate(list(store.groups(40, 512, seed))).tolist() for seed in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3] != orders[0]
    assert np.concatenate(list(store.groups(40))).tolist() == list(range(1000))


def test_long_sentences_are_cut_and_end_once(tmp_path):
    store = write_store(tmp_path / "s", ["abcdefa", "ab"], TOKENIZER, 3)
    a, b, c, d, e, f = (TOKENIZER.encode(letter)[0] for letter in "abcdef")
    assert rows(store.batches(100)) == sorted(
        [((BOS, a, b), (a, b, c)), ((BOS, d, e), (d, e, f)), ((BOS, a), (a, EOS)), ((BOS, a, b), (a, b, EOS))]
    )
    found = store.contents
    assert (found.sentences, found.parts, found.tokens, found.words, found.unknown) == (2, 4, 11, 2, 0)


def test_large_vocabularies_take_four_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(Tokenizer, "size", property(lambda self: 70_000))
    store = write_store(tmp_path / "s", ["abc"], TOKENIZER, 100)
    assert store.tokens.dtype == np.uint32
    assert store.tokens.tolist() == [*TOKENIZER.encode("abc"), EOS]


def test_a_store_that_was_not_finished_is_none(tmp_path):
    def broken():
        yield "abc"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_store(tmp_path / "s", broken(), TOKENIZER, 100)
    with pytest.raises(FileNotFoundError):
        TokenStore(tmp_path / "s")
    assert len(write_store(tmp_path / "s", ["abc"], TOKENIZER, 100)) == 1


def test_text_of_another_style_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"3 of 8 tokens are unknown .*first: 'AB' in 'A b B'.*another style"):
        write_store(tmp_path / "s", ["A b B", "C"], TOKENIZER, 100)
    with pytest.raises(UserError, match="no text to read: no sentence with a character in it"):
        write_store(tmp_path / "s", [], TOKENIZER, 100)
    assert token_store.UNKNOWN_LIMIT == 0.01
