"""A transcript as somebody wrote it -> the form that is trained on, printed or scored.

Reference and hypothesis go through the same named style. Unicode normalisation to NFC (Unicode Standard Annex 15)
happens in `nfc` and nowhere else, so that Hangul written as jamo and as syllables, or é written as one sign and
as two, are one text everywhere behind this file.
"""

import difflib
import unicodedata
from collections.abc import Callable
from itertools import pairwise

from las.errors import UserError

# What is typed for an apostrophe: ’ ‘ ʼ ＇ ´ `
APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\uff07\u00b4\u0060", "'"))
TATWEEL = "\u0640"  # draws an Arabic word longer
# Full- and half-width forms, by what Unicode says they are forms of (the block U+FF00 to U+FFEF).
WIDTHS: dict[int, str | None] = {
    code: chr(int(form[1], 16))
    for code in range(0xFF00, 0xFFF0)
    if (form := unicodedata.decomposition(chr(code)).split())
} | {ord(TATWEEL): None}
# Signs nobody sees, by Unicode category: control, format (joiners, byte order mark, soft hyphen), lone surrogates.
INVISIBLE = ("Cc", "Cf", "Cs")
BYTE_ORDER_MARK = "\ufeff"  # where a file was read as plain UTF-8 that begins with one
ZERO_WIDTH_SPACE = "\u200b"  # of category Cf, but it separates words (Khmer, Thai)


def nfc(text: str) -> str:
    """The text in NFC, with every run of white space made one space and none at the ends, and no byte order mark.

    >>> nfc("  Cafe\\u0301\\t au  lait ")
    'Café au lait'
    """
    return " ".join(unicodedata.normalize("NFC", text.replace(BYTE_ORDER_MARK, "")).split())


def basic(text: str) -> str:
    """Lower case, words and digits only: what is said, not how it is written.

    Punctuation and symbols become a space, so a mark never joins two words (`well-known` is two words, `3.14` too);
    an apostrophe between two letters stays, whichever sign it was typed with. Marks that belong to a letter (accents,
    Devanagari vowels) stay, invisible format signs and the stroke that only lengthens an Arabic word go; full- and
    half-width forms (１２３, ｶﾞ) are what they are forms of. The case is lowered, not folded: ß and the final ς
    keep their spelling.

    >>> basic("“Don’t PANIC,” she said — it’s 50% off!")
    "don't panic she said it's 50 off"
    """
    text = unicodedata.normalize("NFC", text.translate(WIDTHS)).translate(APOSTROPHES)
    text = "".join(sign for sign in text if _is_space(sign) or not is_invisible(sign)).lower()
    written = [" "]
    for sign, following in pairwise(text + " "):
        inside_word = written[-1] != " "
        kind = unicodedata.category(sign)[0]
        if kind == "M":  # an accent whose letter is gone goes with it
            if inside_word:
                written.append(sign)
        elif sign == "'":
            between = inside_word and unicodedata.category(following)[0] in "LN"
            written.append("'" if between else " ")
        elif _is_space(sign) or kind in "PSZ":
            written.append(" ")
        else:
            written.append(sign)
    return nfc("".join(written))


def _is_space(sign: str) -> bool:
    return sign.isspace() or sign == ZERO_WIDTH_SPACE


def is_invisible(sign: str) -> bool:
    """Whether nobody sees a character: it is for the machine, or says how its neighbours are drawn."""
    return unicodedata.category(sign) in INVISIBLE or "\ufe00" <= sign <= "\ufe0f"  # the latter: which picture is meant


STYLES: dict[str, Callable[[str], str]] = {
    "verbatim": nfc,  # as written; only NFC and white space
    "basic": basic,  # lower case, no punctuation
}


def style_named(name: str) -> Callable[[str], str]:
    """The function of a style; raises UserError for an unknown name, with the nearest known one."""
    if name not in STYLES:
        near = difflib.get_close_matches(name, STYLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown text style {name!r}{hint} (known: {', '.join(STYLES)})")
    return STYLES[name]


def normalize(text: str, style: str) -> str:
    """The text in a named style. Idempotent; the result is NFC. Raises UserError for an unknown style only.

    >>> normalize("Grüß  Gott!", "verbatim"), normalize("Grüß  Gott!", "basic")
    ('Grüß Gott!', 'grüß gott')
    """
    return style_named(style)(text)
