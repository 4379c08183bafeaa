"""Text <-> token ids, by SentencePiece (Kudo and Richardson 2018, arXiv:1808.06226).

Three kinds: `unigram` (Kudo 2018, arXiv:1804.10959), `bpe` (Sennrich et al. 2016, arXiv:1508.07909) and `char`.
SentencePiece normalises nothing here: texts come in through `nfc`, and what was encoded decodes to `nfc` of it. The
whole tokenizer is the bytes of one SentencePiece model, `tokenizer.model` in a model folder.
"""

import difflib
import io
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import sentencepiece

from las.errors import UserError
from las.text.draw import choose_way, draw_way, drop_merges
from las.text.normalize import nfc

BLANK, UNK, BOS, EOS = 0, 1, 2, 3  # fixed ids: padding and CTC blank; no such piece; begin and end of a sentence
SPECIAL_PIECES = ("<blank>", "<unk>", "<s>", "</s>")
UNKNOWN_SIGN = "\N{REPLACEMENT CHARACTER}"  # � stands in a decoded text for what the tokenizer could not write
WORD_START = "\u2581"  # ▁ at the head of a piece: a word begins here
Kind = Literal["unigram", "bpe", "char"]

LONGEST_TEXT = 1 << 30  # bytes; SentencePiece's own upper bound. Its default, 4192, drops longer lines in silence
THREADS = 16  # SentencePiece's default, fixed: the model depends on it, whatever the machine
# What no piece can hold: NUL and lone surrogates, and the two signs SentencePiece keeps for itself (a training
# sentence with ▅ would be dropped in silence, ▁ would come back as a space).
RESERVED = re.compile("[\0\u2581\u2585\ud800-\udfff]")
NORMALIZER_FIELD = 3  # of sentencepiece_model.proto; training writes it last


class Tokenizer:
    """Encode and decode with one SentencePiece model. Copies and pickles as the model's bytes.

    >>> tokenizer = Tokenizer.from_bytes(train_model(["one two", "two one one"], size=50, kind="char"))
    >>> ids = tokenizer.encode("two one")
    >>> tokenizer.pieces(ids), tokenizer.decode(ids)
    (['t', 'w', 'o', '▁', 'o', 'n', 'e'], 'two one')
    """

    def __init__(self, model: bytes, where: str = "tokenizer"):
        """`where` names the model in errors. Raises UserError where the bytes are no model `las tokenizer` makes."""
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            pieces = [self._processor.IdToPiece(i) for i in range(self._processor.GetPieceSize())]
            whole = _last_field(model) == NORMALIZER_FIELD
        except (RuntimeError, UnicodeDecodeError):
            whole = False
        if not whole:
            raise UserError(f"{where}: {len(model)} bytes, not a whole SentencePiece model; train or copy it again")
        if tuple(pieces[:4]) != SPECIAL_PIECES or any(map(self._processor.IsByte, range(len(pieces)))):
            raise UserError(
                f"{where}: a SentencePiece model whose first pieces are {' '.join(pieces[:4])}; wanted was one made by "
                f"`las tokenizer`, with {' '.join(SPECIAL_PIECES)} and no byte pieces"
            )
        pieces[UNK] = UNKNOWN_SIGN
        self._pieces = tuple(pieces)
        self._writable = {piece.replace(WORD_START, " ") for piece in pieces[4:] if len(piece) == 1}

    @classmethod
    def from_bytes(cls, model: bytes) -> "Tokenizer":
        """The inverse of `to_bytes`; raises UserError where the bytes are no such model."""
        return cls(model)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a model file; raises UserError naming the file where it is missing or broken."""
        try:
            model = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot read the tokenizer: {error.strerror}") from None
        return cls(model, where=str(path))

    def to_bytes(self) -> bytes:
        return self._model

    def __reduce__(self):
        return Tokenizer.from_bytes, (self._model,)

    @property
    def size(self) -> int:
        """Number of pieces V, the four special ones among them; ids are 0..V-1."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Ids of nfc(text), without BOS, EOS or BLANK whatever the text says; UNK for a run of unknown characters."""
        return self._processor.EncodeAsIds(_without_reserved(text))

    @cached_property
    def kind(self) -> Kind:
        """By what SentencePiece can do with the model: draw with bpe, list the best ways with unigram, too."""
        try:
            self._processor.SampleEncodeAsIds("", -1, 0.1)
        except RuntimeError:
            return "char"
        try:
            self._processor.NBestEncodeAsIds("", 2)
        except RuntimeError:
            return "bpe"
        return "unigram"

    @property
    def can_sample(self) -> bool:
        """Whether there is more than one way to write a text: not with tokens of the kind `char`."""
        return self.kind != "char"

    def sample(self, text: str, alpha: float, nbest: int, seed: int) -> list[int]:
        """As `encode`, but one of the ways to write the text, drawn with `seed`: the same in every process.

        unigram: of the `nbest` best ways, or all with -1, in proportion to their probability to the power of `alpha`
        (0 to 1). bpe: every merge is left out with probability `alpha`; `nbest` says nothing. What no piece can write
        is not drawn. Sources: las/text/draw.py.
        """
        ids, chance = self.encode(text), random.Random(seed)
        if UNK in ids or not ids:
            return ids
        written = "".join(self.pieces(ids))
        if self.kind == "bpe":
            pieces = drop_merges(written, self._scores, alpha, chance)
        elif nbest == -1:
            pieces = draw_way(written, self._scores, alpha, chance)
        else:
            ways = [self.pieces(way) for way in self._processor.NBestEncodeAsIds(_without_reserved(text), nbest)]
            pieces = choose_way(ways, self._scores, alpha, chance)
        return [self._processor.PieceToId(piece) for piece in pieces]

    @cached_property
    def _scores(self) -> dict[str, float]:
        """Of the pieces that a text is written in: log-probabilities, of bpe the order of merges."""
        return {self._pieces[i]: self._processor.GetScore(i) for i in range(EOS + 1, self.size)}

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids (0..V-1), in NFC; BLANK, BOS and EOS leave no trace, UNK is written as �."""
        text = "".join(self.pieces(i for i in ids if i not in (BLANK, BOS, EOS)))
        return nfc(text.replace(WORD_START, " "))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """One string per id, the special ones too; ▁ stands where a word begins, � for UNK."""
        pieces = []
        for i in ids:
            assert 0 <= i < self.size, f"token id {i} is outside 0..{self.size - 1}"
            pieces.append(self._pieces[i])
        return pieces

    def unknown(self, text: str) -> str:
        """The characters of nfc(text) that no piece can write, each once, in the order of their coming."""
        return "".join(sign for sign in dict.fromkeys(nfc(text)) if sign not in self._writable)


def _without_reserved(text: str) -> str:
    return RESERVED.sub("\0", nfc(text))  # no piece holds NUL, so it becomes UNK


def _last_field(model: bytes) -> int:
    """Number of the last field of a protobuf message that parses; 0 where a field is not one of SentencePiece's.

    A file that was cut between two fields is still a message, of fewer pieces.
    """
    at = field = 0
    while at < len(model):
        field, wire_type = model[at] >> 3, model[at] & 7
        if wire_type != 2 or model[at] >= 128:  # no string of bytes, or a number above 15
            return 0
        length = shift = 0
        while True:  # seven bits of the length a byte, lowest first; the last byte is below 128
            at += 1
            length |= (model[at] & 127) << shift
            shift += 7
            if model[at] < 128:
                break
        at += 1 + length
    return field


def train_tokenizer(texts: Iterable[str], size: int, kind: Kind, path: str | Path) -> Tokenizer:
    """Train on texts, write the model to `path` (whole or not at all), return it. Raises as `train_model`."""
    model = train_model(texts, size, kind)
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: a folder; name the tokenizer's file, such as {path / 'tokenizer.model'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(model)
    os.replace(unfinished, path)
    return Tokenizer.load(path)


def train_model(texts: Iterable[str], size: int, kind: Kind) -> bytes:
    """Bytes of a SentencePiece model with at most `size` pieces, special ones included; the same texts give the same.

    Every character of the texts gets a piece. Fewer pieces than `size` come out where the texts hold no more.
    `unigram` and `bpe` begin every text with a word start; `char`, where that would be a token that says
    nothing, writes ▁ between words only (and knows no space where the texts have none).

    Raises UserError for an unknown kind, for no text at all, for characters that SentencePiece cannot hold, and
    for a size below the number of characters (it says how many are needed).
    """
    if kind not in get_args(Kind):
        near = difflib.get_close_matches(kind, get_args(Kind), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown kind of tokenizer {kind!r}{hint} (known: {', '.join(get_args(Kind))})")
    sentences = [nfc(text) for text in texts]
    characters = Counter(WORD_START if kind != "char" else "")
    for number, sentence in enumerate(sentences, start=1):
        _check_sentence(sentence, number)
        characters.update(sentence.replace(" ", WORD_START))
    _check_size(size, characters, sentences)
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences),
        model_writer=writer,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        add_dummy_prefix=kind != "char",
        character_coverage=1.0,
        required_chars="".join(sorted(characters)),     # else `<` and `>` are lost where a text says "<s>"
        max_sentence_length=LONGEST_TEXT,
        num_threads=THREADS,
        pad_id=BLANK, unk_id=UNK, bos_id=BOS, eos_id=EOS,
        pad_piece=SPECIAL_PIECES[BLANK],
        unk_piece=SPECIAL_PIECES[UNK],
        bos_piece=SPECIAL_PIECES[BOS],
        eos_piece=SPECIAL_PIECES[EOS],
        unk_surface=UNKNOWN_SIGN,
        minloglevel=2,      # errors only
    )  # fmt: skip
    return writer.getvalue()


def _check_sentence(sentence: str, number: int) -> None:
    if found := RESERVED.search(sentence):
        raise UserError(
            f"text {number} for the tokenizer holds {found[0]!r} (U+{ord(found[0]):04X}) in {sentence[:60]!r}, which "
            f"SentencePiece cannot write; was the text tokenized before? Replace that character"
        )
    if len(sentence.encode()) > LONGEST_TEXT:
        raise UserError(f"text {number} for the tokenizer is longer than {LONGEST_TEXT} bytes; break it into lines")


def _check_size(size: int, characters: Counter[str], sentences: Sequence[str]) -> None:
    if not any(sentences):
        raise UserError(f"no text to train a tokenizer on: {len(sentences)} texts, none with a character in it")
    needed = len(characters) + len(SPECIAL_PIECES)
    if size < needed:
        rare = " ".join(sign for sign, _ in characters.most_common()[:-6:-1])
        raise UserError(
            f"tokenizer size {size} is too small: the texts hold {len(characters)} different characters, so {needed} "
            f"pieces are needed at least, {len(SPECIAL_PIECES)} special ones included (rarest characters: {rare})"
        )
