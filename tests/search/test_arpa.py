"""ARPA files: what was written is read; what is cut short or foreign is refused with its line."""

import gzip
import re

import numpy as np
import pytest

from las.errors import UserError
from las.search.arpa import Ngrams, read_arpa, words_of, write_arpa
from las.text.tokenizer import Tokenizer, train_model
from las.train.ngram import estimate

SMALL = r"""made by hand
\data\
ngram 1=5
ngram 2=3

\1-grams:
-1	<unk>
-99	<s>	-0.5
-0.7	</s>
-0.4	▁	-0.25
-0.6	a	0.125

\2-grams:
-0.1 <s> a
-0.2	a a
-0.3	a </s>

\end\
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """<blank> <unk> <s> </s> and the pieces a and ▁."""
    return Tokenizer(train_model(["a a a"], 50, "char"))


@pytest.fixture(scope="module")
def odd_tokenizer() -> Tokenizer:
    text = "<s> </s> <unk> <blank> \\data\\ \\end\\ \\1-grams: ngram 1=5 � -1 가나 é \u200b \ufeff #"
    return Tokenizer(train_model([text] * 3 + text.split(), 60, "unigram"))


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_by_hand(tmp_path, tokenizer):
    a, space = (words_of(tokenizer).index(piece) for piece in ("a", "▁"))
    unigrams, bigrams = read_arpa(write(tmp_path / "x.arpa", SMALL), tokenizer)
    assert unigrams.tokens[:, 0].tolist() == [1, 2, 3, space, a]
    assert unigrams.scores.tolist() == [-1, -99, -0.7, -0.4, -0.6]
    assert unigrams.backoffs.tolist() == [0, -0.5, 0, -0.25, 0.125]
    assert bigrams.tokens.tolist() == [[2, a], [a, a], [a, 3]]
    assert bigrams.scores.tolist() == [-0.1, -0.2, -0.3]


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_what_was_written_is_read_with_the_oddest_pieces(tmp_path, odd_tokenizer, name):
    sentences = [odd_tokenizer.encode(text) for text in ("<s> \\end\\ <unk>", "ngram 1=5 -1 �", "가나 가 ☃", "# é")]
    written = estimate(sentences, odd_tokenizer.size, 3)
    write_arpa(tmp_path / name, written, odd_tokenizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    for one, other in zip(written, read_arpa(tmp_path / name, odd_tokenizer), strict=True):
        assert (one.tokens == other.tokens).all()
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-5)
        np.testing.assert_allclose(other.backoffs, one.backoffs, atol=1e-5)


def test_every_cut_is_seen(tmp_path, tokenizer):
    lines = SMALL.splitlines(keepends=True)
    for kept in range(len(lines)):
        path = write(tmp_path / "cut.arpa", "".join(lines[:kept]))
        with pytest.raises(UserError, match=f"cut.arpa(, line {kept}: the file ends|: no line .data. in {kept} lines)"):
            read_arpa(path, tokenizer)


def test_a_compressed_file_that_is_cut_or_is_none(tmp_path, tokenizer):
    whole = gzip.compress(SMALL.encode())
    (tmp_path / "cut.arpa.gz").write_bytes(whole[:-20])
    (tmp_path / "none.arpa.gz").write_bytes(SMALL.encode())
    with pytest.raises(UserError, match="compressed data that is cut short or damaged"):
        read_arpa(tmp_path / "cut.arpa.gz", tokenizer)
    with pytest.raises(UserError, match="cannot be read as an ARPA file: Not a gzipped file"):
        read_arpa(tmp_path / "none.arpa.gz", tokenizer)
    with pytest.raises(UserError, match=r"nowhere\.arpa: cannot be read as an ARPA file: No such file"):
        read_arpa(tmp_path / "nowhere.arpa", tokenizer)
    (tmp_path / "bytes.arpa").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"bytes\.arpa: cannot be read as an ARPA file: 'utf-8' codec"):
        read_arpa(tmp_path / "bytes.arpa", tokenizer)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ngram 2=3", "ngram 3=3", "line 4: 'ngram 3=3', wanted the number of 2-grams"),
        ("ngram 2=3", f"ngram 2={'9' * 20}", "line 4: 'ngram 2=99999999999999999999', wanted the number of 2-grams"),
        ("ngram 2=3", f"ngram {'9' * 5000}=3", "line 4: 'ngram 9"),
        ("ngram 2=3", "n 2=3", "line 4: 'n 2=3', wanted ngram 2=COUNT or \\1-grams:"),
        ("ngram 2=3", "ngram 2=2", "line 16: '-0.3\\ta </s>', wanted \\end\\ after as many n-grams as \\data\\ says"),
        ("ngram 2=3", "ngram 2=4", "line 17: '' is no 2-gram with its log-probability"),
        ("ngram 1=5", "ngram 1=4", "line 11: '-0.6\\ta\\t0.125', wanted \\2-grams: after"),
        ("-0.2\ta a", "-0.2\ta b", "line 15: the word 'b' is not among the 1-grams"),
        ("-0.2\ta a", "-0.2\ta a 0", "line 15: '-0.2\\ta a 0' is no 2-gram"),
        ("-0.2\ta a", "-0.2\ta", "line 15: '-0.2\\ta' is no 2-gram"),
        ("-0.2\ta a", "x\ta a", "line 15: 'x\\ta a' is no 2-gram"),
        ("-0.2\ta a", "nan\ta a", "line 15: the log-probability must be 0 or less"),
        ("-0.2\ta a", "0.2\ta a", "line 15: the log-probability must be 0 or less"),
        ("-0.25", "inf", "line 10: the log-probability must be 0 or less, the back-off weight a number"),
        ("-0.7\t</s>", "-0.7\t<s>", ": </s> is not among its 1-grams"),
        ("-0.4\t▁", "-0.4\tb", ": 1 of its 5 words are no tokens of the model: b (the model's are"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, tokenizer, old, new, message):
    assert SMALL.count(old) == 1
    path = write(tmp_path / "x.arpa", SMALL.replace(old, new))
    with pytest.raises(UserError, match=re.escape(message)):
        read_arpa(path, tokenizer)


def test_a_file_without_unk_must_list_all_tokens(tmp_path, tokenizer):
    text = SMALL.replace("ngram 1=5", "ngram 1=4").replace("-1\t<unk>\n", "")
    read_arpa(write(tmp_path / "whole.arpa", text), tokenizer)
    text = text.replace("ngram 1=4", "ngram 1=3").replace("-0.4\t▁\t-0.25\n", "")
    with pytest.raises(UserError, match=r"neither <unk> nor 1 of the model's 6 tokens \(▁\) are among its 1-grams"):
        read_arpa(write(tmp_path / "part.arpa", text), tokenizer)


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path, tokenizer):
    bad = Ngrams(np.array([[99]], dtype=np.int32), np.array([-1.0]), np.array([0.0]))
    with pytest.raises(IndexError):
        write_arpa(tmp_path / "x.arpa", [bad], tokenizer)
    assert not (tmp_path / "x.arpa").exists()
