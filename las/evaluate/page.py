"""The record of a report -> report.html: one file that needs no network and no other file to be read.

Figures, tables and histograms are written here; the utterances lie in the page as JSON, and `page.js` draws the few
that are looked at, so that ten thousand open at once. Nothing from the record is ever parsed as HTML: here all is
escaped, there all goes through textContent, and the page's security policy lets no script run but the one whose
hash it names. A recording or picture is read by the script only when its utterance is opened.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from las.evaluate.breakdown import Record, facts, format_interval
from las.evaluate.media import Media

FOLDER = Path(__file__).parent
BARS = 16  # of a histogram, at most
WIDTH, HEIGHT, FOOT = 320, 96, 18  # of a histogram's picture and the place below it, in pixels
FOLDED = 12  # rows of a table above which it comes folded up
CONFUSED = {"substitutions": "said → written", "deletions": "said", "insertions": "written"}
COLUMNS = ("utterances", "WER", "95%", "S", "D", "I", "N", "CER")


def page(record: Record, media: Mapping[str, Mapping[str, Media]]) -> str:
    """The whole page of a report; `media` are by set and utterance id."""
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src data: file: 'self'"
    )
    names = " ".join(one["name"] for one in record["sets"])
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(names)} - WER report</title><style>{style}</style></head><body>",
        "<header><h1>Word errors</h1>",
        f"<p><code>{escape(record['command'])}</code></p>",
        f"<p>{escape(record['commit'])} on {escape(record['hardware'])}</p></header>",
        *(part for number, one in enumerate(record["sets"]) for part in _set(number, one, media.get(one["name"], {}))),
        f"<footer><p>Intervals hold {record['interval']['level']:.0%} of {record['interval']['draws']:,} bootstrap "
        f"draws. Characters of CER are {escape(record['character'])}. Every utterance as text: report.txt; every "
        f"figure: report.json.</p></footer><script>{script}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _set(number: int, one: Record, media: Mapping[str, Media]) -> Iterator[str]:
    wer = one["wer"]
    rate = "undefined" if wer["rate"] is None else f"{wer['rate']:.2%}"
    yield f'<section><h2 dir="auto">{escape(one["name"])}</h2>'
    yield f'<p class="headline"><strong>{rate}</strong> WER, 95% {format_interval(wer)} over {one["interval_over"]}</p>'
    figures = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts(one))
    yield f"<dl>{''.join(figures)}</dl>"
    yield '<div class="figures">'
    yield from _histograms(one["aligned"])
    if one["reliability"]:
        yield _reliability(one["reliability"]["bins"])
    yield "</div>"
    for title, rows in (("verdict", one["verdicts"]), ("speaker", one["speakers"])):
        if rows:
            yield _groups(title, rows)
    for title, rows in one["buckets"].items():
        if rows:
            yield _groups(title, rows)
    yield from _confusions(one["confusions"])
    # where some utterances have media, those without say that theirs were left out
    some = " data-media" if media else ""
    yield f'<div class="utterances" data-set="{number}"{some}><noscript>Read report.txt instead.</noscript></div>'
    yield "</section>"
    yield _data(f"set-{number}", one["aligned"])
    for place, utterance in enumerate(one["aligned"]):
        if utterance["id"] in media:
            yield _data(f"media-{number}-{place}", media[utterance["id"]].record())


def _data(name: str, value: Any) -> str:
    """JSON for the page's script; no `<` in it, so that no text can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


# ------------------------------------------------------------------------------------------------------------- tables


def _groups(title: str, rows: Sequence[Record]) -> str:
    """A table of error rates; a cell's data-value is what it is sorted by."""
    body = []
    bounded = any(row["wer"]["interval"] for row in rows)
    for row in rows:
        wer, cer = row["wer"], row["cer"]
        counts = (wer["substitutions"], wer["deletions"], wer["insertions"], wer["reference"])
        cells = [_cell(row["utterances"], row["utterances"]), _rate(wer)]
        if bounded:
            cells.append(_cell(format_interval(wer), wer["interval"][0] if wer["interval"] else -1.0))
        cells += [*(_cell(count, count) for count in counts), _rate(cer)]
        body.append(f'<tr><th scope="row" dir="auto">{escape(str(row["name"]))}</th>{"".join(cells)}</tr>')
    columns = [name for name in COLUMNS if bounded or name != "95%"]
    return _table(f"By {title}", [(title, False), *((name, True) for name in columns)], body)


def _confusions(found: Record) -> Iterator[str]:
    for kind, rows in found.items():
        body = [
            f'<tr>{_cell(times, times)}<td dir="auto">{escape(" → ".join(filter(None, words)))}</td></tr>'
            for *words, times in rows
        ]
        if body:
            yield _table(kind.capitalize(), [("times", True), (CONFUSED[kind], False)], body)


def _table(title: str, columns: Sequence[tuple[str, bool]], body: Sequence[str]) -> str:
    """A table that can be sorted; columns by title, and whether they hold numbers. A long one comes folded up."""
    head = "".join(
        f'<th scope="col" class="{"number" if numbers else ""}"><button>{escape(name)}</button></th>'
        for name, numbers in columns
    )
    return (
        f"<details{' open' if len(body) <= FOLDED else ''}><summary>{escape(title)}</summary>"
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


def _cell(text: object, value: float) -> str:
    return f'<td class="number" data-value="{value}">{escape(str(text))}</td>'


def _rate(rate: Record) -> str:
    return _cell("undefined", -1.0) if rate["rate"] is None else _cell(f"{rate['rate']:.2%}", rate["rate"])


# --------------------------------------------------------------------------------------------------------- histograms


def _histograms(aligned: Sequence[Record]) -> Iterator[str]:
    """How many utterances have which error rate, length and speaking rate."""
    errors = [sum(sign != "=" for sign in one["operations"]) for one in aligned]
    words = [sum(sign != "I" for sign in one["operations"]) for one in aligned]
    rates = np.array([100 * wrong / said for wrong, said in zip(errors, words, strict=True) if said])
    timed = [one for one in aligned if one["seconds"]]
    if len(rates):
        edges = [0.0, 1e-9, *range(10, 101, 10), np.inf]
        labels = ["0", *(f"{low}-{low + 10}" for low in range(0, 100, 10)), ">100"]
        # an error rate of exactly 10 belongs to 0-10: the bins take their upper edge
        places = np.searchsorted(edges[1:], rates, side="left").clip(max=len(labels) - 1)
        yield _bars("utterances by WER, %", labels, np.bincount(places, minlength=len(labels)))
    for title, values, least in (
        ("length, words", np.array(words, dtype=np.float64), 1.0),
        ("length, seconds", np.array([one["seconds"] for one in timed]), 0.0),
        ("rate, characters a second", np.array([one["characters"] / one["seconds"] for one in timed]), 0.0),
    ):
        if len(values):
            yield _bars(f"utterances by {title}", *_bins(values, least))


def _bins(values: np.ndarray, least: float) -> tuple[list[str], np.ndarray]:
    """At most `BARS` bins, 1, 2 or 5 times a power of ten wide; where each begins, and how many values are in it."""
    span = max(float(values.max() - values.min()), 1.0)
    power = 10.0 ** np.floor(np.log10(span / BARS))
    width = max(least, next(power * step for step in (1, 2, 5, 10, 20) if span / (power * step) <= BARS - 1))
    places = np.floor(np.round(values / width, 9))  # 1.2 / 0.1 is 11.999999999999998
    first = places.min()
    places = (places - first).astype(int)
    counts = np.bincount(places)
    return [f"{(first + place) * width:g}" for place in range(len(counts))], counts


def _bars(title: str, labels: Sequence[str], counts: np.ndarray) -> str:
    step = WIDTH / len(labels)
    highest = max(int(counts.max()), 1)
    bars = []
    for place, (label, count) in enumerate(zip(labels, counts.tolist(), strict=True)):
        height = HEIGHT * count / highest
        bars.append(
            f'<rect x="{place * step + 1:.1f}" y="{HEIGHT - height:.1f}" width="{step - 2:.1f}" height="{height:.1f}">'
            f"<title>{escape(label)}: {count}</title></rect>"
        )
        if place % max(1, len(labels) // 6) == 0:
            bars.append(f'<text x="{(place + 0.5) * step:.1f}" y="{HEIGHT + 13}">{escape(label)}</text>')
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{escape(title)}">'
        f'<path d="M0 {HEIGHT + 0.5}H{WIDTH}"/>{"".join(bars)}</svg><figcaption>{escape(title)}</figcaption></figure>'
    )


def _reliability(bins: Sequence[Sequence[float]]) -> str:
    """Share of right words against their confidence: a bar for each bin of it, and the line that they should meet."""
    step = WIDTH / len(bins)
    bars = []
    for place, (count, mean, share) in enumerate(bins):
        low, high = 100 * place // len(bins), 100 * (place + 1) // len(bins)
        if count:
            title = f"{low}-{high}%: {count} words, mean confidence {mean:.1%}, {share:.1%} right"
            bars.append(
                f'<rect x="{place * step + 1:.1f}" y="{HEIGHT * (1 - share):.1f}" width="{step - 2:.1f}" '
                f'height="{HEIGHT * share:.1f}"><title>{escape(title)}</title></rect>'
            )
        bars.append(f'<text x="{(place + 0.5) * step:.1f}" y="{HEIGHT + 13}">{low}</text>')
    title = "right words, %, against confidence, %; the line: as many as were promised"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{escape(title)}">'
        f'<path d="M0 {HEIGHT + 0.5}H{WIDTH}"/>{"".join(bars)}<path d="M0 {HEIGHT}L{WIDTH} 0"/></svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
