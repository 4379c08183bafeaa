"""n-grams for all beams at once: against a slow reading of the same file, one n-gram at a time."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from las.errors import UserError
from las.search.arpa import words_of, write_arpa
from las.search.ngram import NgramScorer, build, read_ngrams
from las.text.tokenizer import Tokenizer, train_model
from las.train.ngram import estimate

TOKENIZER = Tokenizer(train_model(["abc"], 50, "char"))  # ids 4, 5, 6
V = TOKENIZER.size
NEVER = (0, 1, 2)
TEXTS = st.lists(st.lists(st.integers(4, 6), min_size=1, max_size=9), min_size=1, max_size=15)


class Slow:
    """An ARPA file as a dict of words; log p by the rule of the format."""

    def __init__(self, path):
        self.scores, self.backoffs, self.order, words = {}, {}, 0, words_of(TOKENIZER)
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.endswith("-grams:"):
                self.order = int(line[1])
            elif "\t" in line:
                score, text, *backoff = line.split("\t")
                gram = tuple(words.index(word) for word in text.split(" "))
                self.scores[gram] = float(score) * math.log(10)
                self.backoffs[gram] = float(backoff[0]) * math.log(10) if backoff else 0.0

    def log_p(self, word, history):
        word, *history = [token if (token,) in self.scores else 1 for token in (word, *history)]  # else it is <unk>
        context = tuple(history[len(history) - self.order + 1 :]) if len(history) >= self.order else tuple(history)
        if (*context, word) in self.scores:
            return self.scores[(*context, word)]
        return self.backoffs.get(context, 0.0) + self.log_p(word, context[1:])


def check(model, slow, seed, utterances=3, beams=3):
    """Walk random beams through the scorer, with utterances leaving, and compare all scores."""
    chance = torch.Generator().manual_seed(seed)
    scorer = NgramScorer(model, utterances, NEVER)
    state, histories = scorer.start(), [[[]] for _ in range(utterances)]
    tokens = torch.full((utterances, 1), 2)
    for _ in range(5):
        scores, state = scorer.step(tokens, state)
        for row, history_of in enumerate(histories):
            for beam, history in enumerate(history_of):
                history.append(int(tokens[row, beam]))
                wanted = [slow.log_p(word, history) if word not in NEVER else -math.inf for word in range(V)]
                assert scores[row, beam].tolist() == pytest.approx(wanted, abs=1e-9)
        kept = torch.arange(len(histories))[torch.rand(len(histories), generator=chance) < 0.9]
        parents = torch.randint(0, tokens.shape[1], (len(kept), beams), generator=chance)
        state = scorer.select(state, kept, parents)
        histories = [
            [list(histories[row][parent]) for parent in row_parents]
            for row, row_parents in zip(kept.tolist(), parents.tolist(), strict=True)
        ]
        tokens = torch.randint(3, V, parents.shape, generator=chance)  # EOS too, as in beams that have ended


@settings(max_examples=15, deadline=None)
@example([[4]], 4, 0, (0, 1))  # nothing is left of the higher orders
@given(TEXTS, st.integers(2, 4), st.integers(0, 99), st.sampled_from([(), (0, 1), (1,)]))
def test_scores_are_those_of_the_file(tmp_path_factory, sentences, order, seed, cutoffs):
    path = tmp_path_factory.mktemp("arpa") / "lm.arpa"
    write_arpa(path, estimate(sentences, V, order, cutoffs), TOKENIZER)
    check(read_ngrams(path, TOKENIZER, torch.float64), Slow(path), seed)


FOREIGN = r"""\data\
ngram 1=4
ngram 2=3
ngram 3=2

\1-grams:
-1 	<unk>	-0.3
-99	<s>	-0.5
-0.7	</s>
-0.4	b	-0.25

\2-grams:
-0.3	b <unk>	-0.1
-0.1	<s> b	-0.2
-0.2	b b

\3-grams:
-0.15	b b b
-0.25	<s> b <unk>

\end\
"""


def foreign(tmp_path, text=FOREIGN):
    """A file of another program: unsorted, a and c are not listed, suffixes are missing, one blank before a tab."""
    path = tmp_path / "foreign.arpa"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_of_another_program(tmp_path):
    path = foreign(tmp_path)
    for seed in range(5):
        check(read_ngrams(path, TOKENIZER, torch.float64), Slow(path), seed)


def test_orders_of_which_cutoffs_left_nothing(tmp_path):
    """A text of one word: its bigrams come once each, so none is kept, and no trigram either."""
    path = tmp_path / "lm.arpa"
    write_arpa(path, estimate([[4]], V, 3, (1,)), TOKENIZER)
    model = read_ngrams(path, TOKENIZER, torch.float64)
    assert model.order == 1
    check(model, Slow(path), seed=0)


def test_unigrams_alone(tmp_path):
    text = "\\data\\\nngram 1=4\n\n\\1-grams:\n-1\t<unk>\n-99\t<s>\n-0.7\t</s>\n-0.4\tb\n\n\\end\\\n"
    path = foreign(tmp_path, text)
    check(read_ngrams(path, TOKENIZER, torch.float64), Slow(path), 0)


def test_probabilities_of_every_context_sum_to_one():
    model = build(estimate([[4, 5, 6, 4], [5, 5, 4]], V, 3), TOKENIZER, torch.float64)
    scores, state = NgramScorer(model, 1, (0, 2)).step(torch.tensor([[2]]), torch.full((1, 1, 2), -1))
    for token in (4, 5, 6, 5, 5, 1, 4, 4):
        assert scores.exp().sum().item() == pytest.approx(1, abs=1e-12)
        scores, state = NgramScorer(model, 1, (0, 2)).step(torch.tensor([[token]]), state)


def test_float32_is_the_default_and_a_device_can_be_named():
    model = build(estimate([[4, 5]], V, 3), TOKENIZER).to(torch.device("cpu"))
    assert {one.dtype for one in (*model.scores, *model.backoffs)} == {torch.float32}
    assert (model.order, model.vocabulary) == (3, V)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.4\tb\t", "-0.4\t<unk>\t", r"foreign.arpa: the 1-gram '.' is listed twice"),
        ("-0.2\tb b\n", "-0.2\t<s> b\n", r"foreign.arpa: the 2-gram '<s> b' is listed twice"),
        ("b b b", "b </s> b", r"foreign.arpa: the 3-gram 'b </s> b' is listed, but not all that it begins with"),
    ],
)
def test_n_grams_that_make_no_sense(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message):
        read_ngrams(foreign(tmp_path, FOREIGN.replace(old, new)), TOKENIZER)
