import io
import pickle
import random
import subprocess
import sys
import unicodedata

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from las.errors import UserError
from las.text import tokenizer as tokenizer_file
from las.text.normalize import nfc
from las.text.tokenizer import BLANK, BOS, EOS, UNK, Tokenizer, train_model, train_tokenizer

TEXTS = [
    "I don't know what the cat said, Tom's cat",
    "나는 학교에 간다 한국어를 듣는다",
    "我喜欢听音乐，你呢？",
    "Tôi yêu tiếng Việt, où est l'élève à Nîmes",
    "हिन्दी में बोलो",
    'a comma, an = sign, a "quote" and a \\ too',
    "he said <s> and <unk> and </s> or <blank>",
] * 3
KINDS = ["unigram", "bpe", "char"]
SIGNS = "".join(sorted(set("".join(map(nfc, TEXTS)))))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return Tokenizer.from_bytes(train_model(TEXTS, size=200, kind=request.param))


@pytest.mark.parametrize("text", [*dict.fromkeys(TEXTS), "  don't\t say\u3000\n나는  ", "", " ", "간다 Tom 你"])
def test_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == nfc(text)
    assert tokenizer.encode(unicodedata.normalize("NFD", text)) == tokenizer.encode(text)


@given(text=st.text(alphabet=SIGNS + " \t"))
def test_every_text_of_known_characters_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.unknown(text) == ""
    assert tokenizer.decode(ids) == nfc(text)
    assert all(EOS < i < tokenizer.size for i in ids)
    assert len(tokenizer.pieces(ids)) == len(ids)


@given(text=st.text(alphabet=SIGNS + " "), seed=st.integers(0, 2**31 - 1))
def test_a_drawn_way_to_write_a_text_reads_the_same_and_comes_again(tokenizer, text, seed):
    if not tokenizer.can_sample:
        return
    ids = tokenizer.sample(text, 0.3, -1, seed)
    tokenizer.sample("something else", 0.3, -1, 3)
    assert tokenizer.sample(text, 0.3, -1, seed) == ids
    assert tokenizer.decode(ids) == nfc(text)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_what_is_drawn_is_the_same_in_every_process(tmp_path, kind):
    tokenizer = train_tokenizer(TEXTS, 200, kind, tmp_path / "t.model")
    places = [(nbest, seed) for nbest in (-1, 4) for seed in range(5)]
    drawn = f"[t.sample({TEXTS[0]!r}, 0.2, nbest, seed) for nbest, seed in {places}]"
    ask = f"from las.text.tokenizer import Tokenizer\nt = Tokenizer.load({str(tmp_path / 't.model')!r})\nprint({drawn})"
    found = {subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout for _ in range(2)}
    assert found == {f"{[tokenizer.sample(TEXTS[0], 0.2, nbest, seed) for nbest, seed in places]}\n"}


def test_many_ways_are_drawn_and_few_where_few_are_asked_for():
    unigram, bpe, char = (Tokenizer.from_bytes(train_model(TEXTS, size=200, kind=kind)) for kind in KINDS)
    text = TEXTS[0]
    assert (unigram.can_sample, bpe.can_sample, char.can_sample) == (True, True, False)
    ways = {nbest: {tuple(unigram.sample(text, 0.1, nbest, seed)) for seed in range(60)} for nbest in (-1, 3)}
    assert len(ways[3]) == 3
    assert len(ways[-1]) > 10
    assert len({tuple(bpe.sample(text, 0.3, -1, seed)) for seed in range(60)}) > 10
    assert tuple(unigram.encode(text)) in ways[3]
    likely = [unigram.sample(text, 1.0, 3, seed) for seed in range(200)].count(unigram.encode(text))
    flat = [unigram.sample(text, 0.0, 3, seed) for seed in range(200)].count(unigram.encode(text))
    assert 40 < flat < 95  # a third of 200
    assert likely > flat


@given(text=st.text() | st.text(alphabet="ab ▁▅\0\ud800한❤"))
def test_unknown_tells_when_unk_is_written(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not {BLANK, BOS, EOS} & set(ids)
    assert (UNK in ids) == (tokenizer.unknown(text) != "") == ("�" in tokenizer.decode(ids))


@given(ids=st.lists(st.integers(0, 45)))
def test_decoding_any_ids_gives_nfc_text(tokenizer, ids):
    text = tokenizer.decode(ids)
    assert text == nfc(text)
    assert text == tokenizer.decode([i for i in ids if i not in (BLANK, BOS, EOS)])


def test_special_pieces_have_fixed_ids_and_are_never_encoded(tokenizer):
    assert (BLANK, UNK, BOS, EOS) == (0, 1, 2, 3)
    assert tokenizer.pieces([0, 1, 2, 3]) == ["<blank>", "�", "<s>", "</s>"]
    text = "<s> </s> <unk> <blank>"
    assert min(tokenizer.encode(text)) > EOS
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([BOS, *tokenizer.encode("the cat"), EOS, BLANK, BLANK]) == "the cat"


def test_unknown_characters_are_named_once_and_seen_in_the_text(tokenizer):
    assert tokenizer.unknown("the ❤ z▁❤\0 cat") == "❤z▁\0"
    assert tokenizer.decode(tokenizer.encode("the ❤❤ cat")) == "the � cat"
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a�b"


def test_an_id_out_of_range_is_a_broken_invariant(tokenizer):
    for wrong in (tokenizer.size, -1):
        with pytest.raises(AssertionError, match=rf"token id {wrong} is outside 0\.\.{tokenizer.size - 1}"):
            tokenizer.decode([4, wrong])


def test_pieces_show_where_words_begin():
    texts = ["one two"] * 9
    char = Tokenizer.from_bytes(train_model(texts, 50, "char"))
    assert char.pieces(char.encode("one two")) == list("one▁two")
    bpe = Tokenizer.from_bytes(train_model(texts, 50, "bpe"))
    assert bpe.pieces(bpe.encode("one two")) == ["▁one", "▁two"]


def test_a_text_without_spaces():
    for kind in ("unigram", "bpe"):
        tokenizer = Tokenizer.from_bytes(train_model(["ab"], 7, kind))  # a, b, ▁ and the special pieces
        assert tokenizer.decode(tokenizer.encode("a b")) == "a b"
    tokenizer = Tokenizer.from_bytes(train_model(["ab"], 6, "char"))
    assert tokenizer.pieces(tokenizer.encode("ab")) == ["a", "b"]
    assert tokenizer.unknown("a b") == " "
    assert tokenizer.decode(tokenizer.encode("a b")) == "a�b"


def test_pickles_as_its_bytes(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.to_bytes() == tokenizer.to_bytes()
    assert copy.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_a_soft_limit_and_training_is_deterministic_and_silent(kind, tmp_path, capfd):
    path = tmp_path / "새 폴더" / "tokenizer.model"
    tokenizer = train_tokenizer(iter(TEXTS), 100_000, kind, path)
    assert len(SIGNS) + 4 <= tokenizer.size < 1000  # every character (▁ for the space) and the special pieces
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.model"]
    assert path.read_bytes() == tokenizer.to_bytes() == train_model(TEXTS, 100_000, kind)
    assert Tokenizer.load(path).pieces(range(tokenizer.size)) == tokenizer.pieces(range(tokenizer.size))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_size_is_the_one_the_error_tells(kind):
    needed = len(SIGNS) + 4
    message = rf"size {needed - 1} is too small: .* {len(SIGNS)} different characters, so {needed} pieces .*rarest"
    with pytest.raises(UserError, match=message):
        train_model(TEXTS, needed - 1, kind)
    assert Tokenizer.from_bytes(train_model(TEXTS, needed, kind)).unknown("".join(TEXTS)) == ""


def test_a_text_longer_than_the_default_limit_is_learnt_from():
    tokenizer = Tokenizer.from_bytes(train_model(["ab " * 3000 + "q"], 20, "char"))
    assert tokenizer.unknown("abq ") == ""


@pytest.mark.parametrize("texts", [[], ["", " \t"]])
def test_no_text(texts):
    with pytest.raises(UserError, match=f"no text to train a tokenizer on: {len(texts)} texts"):
        train_model(texts, 100, "unigram")


@pytest.mark.parametrize("sign", ["▁", "▅", "\0", "\ud800"])
def test_characters_that_sentencepiece_would_lose_are_refused(sign):
    with pytest.raises(UserError, match=rf"text 2 .*U\+{ord(sign):04X}.*SentencePiece cannot write"):
        train_model(["fine", f"a{sign}b"], 100, "bpe")


def test_a_text_over_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(tokenizer_file, "LONGEST_TEXT", 10)
    with pytest.raises(UserError, match="text 1 for the tokenizer is longer than 10 bytes"):
        train_model(["한국어를 "], 100, "bpe")


def test_unknown_kind_names_the_nearest():
    with pytest.raises(
        UserError, match=r"unknown kind of tokenizer 'unigramm'; did you mean 'unigram'\? \(known: unig"
    ):
        train_model(["a"], 10, "unigramm")


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"hello world\n" * 9, random.Random(0).randbytes(3000)])
def test_a_broken_model_file(content, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.model: \d+ bytes, not a whole SentencePiece model"):
        Tokenizer.load(path)


def test_a_model_cut_at_any_byte():
    model = train_model(["one two three"], 30, "char")
    for size in range(len(model)):
        with pytest.raises(UserError, match=f"tokenizer: {size} bytes, not a whole SentencePiece model"):
            Tokenizer.from_bytes(model[:size])


def test_a_model_with_other_special_pieces():
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["one two"]), model_writer=writer, model_type="char", vocab_size=9, minloglevel=2
    )
    with pytest.raises(UserError, match=r"first pieces are <unk> <s> </s> .*made by `las tokenizer`"):
        Tokenizer.from_bytes(writer.getvalue())


def test_a_model_with_byte_pieces():
    writer = io.BytesIO()
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "pad_piece": "<blank>"}
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(["one two"]), model_writer=writer, vocab_size=270, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, **ids,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"first pieces are <blank> <unk> <s> </s>; .* and no byte pieces"):
        Tokenizer.from_bytes(writer.getvalue())


def test_a_missing_model_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.model: cannot read the tokenizer: No such file"):
        Tokenizer.load(tmp_path / "none.model")
