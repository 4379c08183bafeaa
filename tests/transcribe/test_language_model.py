"""Language models on disk: opened as scorers, or refused because their tokens are others."""

import re

import pytest
import torch

from las import checkpoint
from las.errors import UserError
from las.model.language_model import LanguageModel, LanguageModelConfig
from las.search.arpa import write_arpa
from las.text.tokenizer import Tokenizer, train_model
from las.train.ngram import estimate
from las.transcribe.language_model import check_tokens, open_scorer, read_language_model

TOKENIZER = Tokenizer(train_model(["abc", "cab"], 50, "char"))
CONFIG = "style: basic\nmodel: {embedding: 4, width: 6, layers: 1, skip: true, tied: false, dropout: 0.1}\n"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(embedding=4, width=6, layers=1), TOKENIZER.size)
    path = tmp_path / "language_model"
    checkpoint.write_model(path, CONFIG, model.state_dict(), TOKENIZER.to_bytes(), TOKENIZER.size, "# lm\n")
    return path


@pytest.fixture
def arpa(tmp_path):
    write_arpa(tmp_path / "lm.arpa", estimate([[4, 5, 6]], TOKENIZER.size, 3), TOKENIZER)
    return tmp_path / "lm.arpa"


@torch.no_grad()
def test_either_kind_scores_utterances(folder, arpa):
    for path in (folder, arpa):
        scorer = open_scorer(path, TOKENIZER, (0, 2), CPU)(2)
        scores, state = scorer.step(torch.tensor([[2], [2]]), scorer.start())
        assert scores.shape == (2, 1, TOKENIZER.size)
        torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2, 1), rtol=0, atol=1e-5)
        assert (scores[..., [0, 2]] == -torch.inf).all()
        scorer.step(torch.tensor([[4, 5]]), scorer.select(state, torch.tensor([1]), torch.tensor([[0, 0]])))


@torch.no_grad()
def test_what_was_written_is_read(folder):
    model, tokenizer, style = read_language_model(folder)
    assert (model.config.width, tokenizer.size, style, model.training) == (6, TOKENIZER.size, "basic", False)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["abd"], "of 7 other tokens than the recogniser's 7 (token 6 is 'c' there and 'd' here); train it with"),
        (["abcd", "cab"], "of 7 other tokens than the recogniser's 8 (token"),
    ],
)
def test_other_tokens_are_refused_by_name(folder, arpa, texts, message):
    other = Tokenizer(train_model(texts, 50, "char"))
    with pytest.raises(UserError, match=re.escape(message)):
        open_scorer(folder, other, (), CPU)
    if "abd" in texts:
        with pytest.raises(UserError, match=r"lm.arpa: 1 of its 6 words are no tokens of the model: c \(the"):
            open_scorer(arpa, other, (), CPU)


def test_fewer_tokens_of_the_same_begin_are_refused_too():
    class Short(Tokenizer):
        def pieces(self, ids):
            return super().pieces(ids)[:-1]

        def to_bytes(self):
            return b""

    with pytest.raises(UserError, match="6 is missing in one of them"):
        check_tokens(Short(TOKENIZER.to_bytes()), TOKENIZER, "lm")
    check_tokens(TOKENIZER, TOKENIZER, "lm")


def test_what_is_no_language_model_is_refused(folder, tmp_path):
    def changed(config, name="changed"):
        weights = checkpoint.read_model(folder).weights
        checkpoint.write_model(tmp_path / name, config, weights, TOKENIZER.to_bytes(), TOKENIZER.size, "# lm\n")
        return tmp_path / name

    with pytest.raises(UserError, match="not a language model; wanted the folder language_model of `las lm train`"):
        read_language_model(changed("style: basic\nmodel: {listener: {width: 3}}\n"))
    with pytest.raises(UserError, match="not a language model"):
        read_language_model(changed("style: basic\n"))
    with pytest.raises(UserError, match="unknown text style 'None'"):
        read_language_model(changed(CONFIG.replace("style: basic\n", "")))
    with pytest.raises(UserError, match="unknown key 'widht'"):
        read_language_model(changed(CONFIG.replace("width", "widht")))
    with pytest.raises(UserError, match="not a model folder"):
        read_language_model(tmp_path)
    text = (folder / "config.yaml").read_text(encoding="utf-8").replace("vocabulary: 7", "vocabulary: 9")
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="the tokenizer has 7 tokens, the config says 9"):
        read_language_model(folder)
