"""`las lm`: language models trained, counted, scored and sampled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from las.cli.options import Device, Keys, Resume, RunFolder, RunWords, refuse_overwriting, run_settings
from las.cli.progress import LanguageModelBar, progress_bar

LanguageModelName = Annotated[str, typer.Option("--model", help="A folder of `las lm train`, or an ARPA file.")]
Texts = Annotated[list[Path], typer.Argument(help="Text files (.txt, .gz, .xz), a sentence a line, or manifests.")]
Tokens = Annotated[Path | None, typer.Option(help="Its tokenizer or model folder; wanted for an ARPA file.")]
OwnStyle = Annotated[str | None, typer.Option(help="How text is normalised. Default: as the model's was.")]


def train(words: RunWords = None, output_dir: RunFolder = None, resume: Resume = False, keys: Keys = False) -> None:
    """Train an LSTM language model: las lm train conf/lm.yaml train.epochs=3 -o exp/lm."""
    from las.recipe import language_models

    config = run_settings(language_models.LanguageModelRunConfig, words or [], output_dir, resume, keys)
    if config is None or output_dir is None:
        return
    with LanguageModelBar(config.train.epochs) as bar:
        folder = language_models.train(config, output_dir, resume, bar)
    print(folder)


def ngram(
    texts: Texts,
    tokenizer: Annotated[Path, typer.Option(help="The recogniser's model folder, or its tokenizer.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ARPA file; .gz is compressed.")],
    order: Annotated[int, typer.Option(help="Tokens of the longest n-grams, 2 to 8.")] = 4,
    cutoffs: Annotated[
        str, typer.Option(help="Of orders 2,3,...: n-grams that come this often or less are left out, such as 0,1,2.")
    ] = "0",
    style: Annotated[str, typer.Option(help="How text is normalised: verbatim or basic.")] = "basic",
) -> None:
    """Estimate an n-gram model over tokens by modified Kneser-Ney, as an ARPA file."""
    from las.recipe import language_models

    if not re.fullmatch(r"\d+(,\d+)*", cutoffs):
        raise typer.BadParameter(f"{cutoffs!r}: wanted numbers such as 0,1,2", param_hint="--cutoffs")
    refuse_overwriting(output, [*texts, tokenizer])
    tokens = language_models.read_tokenizer(tokenizer)
    least = [int(number) for number in cutoffs.split(",")]
    sizes = language_models.estimate_ngrams(texts, tokens, style, order, least, output)
    print(f"{output}: {', '.join(f'{size} {number}-grams' for number, size in enumerate(sizes, start=1))}")


def score(
    texts: Texts,
    model: LanguageModelName,
    tokenizer: Tokens = None,
    style: OwnStyle = None,
    device: Device = "auto",
) -> None:
    """Print the perplexity of a text, per token and per word, under a language model."""
    from las.recipe import language_models

    tokens = None if tokenizer is None else language_models.read_tokenizer(tokenizer)
    opened = language_models.open_language_model(model, tokens, style, device)
    with progress_bar("scoring", None) as bar:
        found = opened.perplexity(texts, bar)
    unknown = f", {found.unknown} tokens unknown" if found.unknown else ""
    print(f"perplexity per token {found.per_token:.3f}, per word {found.per_word:.2f}")
    print(f"{found.sentences} sentences, {found.words} words, {found.tokens} tokens with ends of sentences{unknown}")


def sample(
    model: LanguageModelName,
    tokenizer: Tokens = None,
    sentences: Annotated[int, typer.Option(help="How many to draw.")] = 10,
    temperature: Annotated[float, typer.Option(help="Below 1 the likely becomes likelier, above 1 the rare.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same sentences.")] = 0,
    device: Device = "auto",
) -> None:
    """Draw sentences from a language model."""
    from las.recipe import language_models

    tokens = None if tokenizer is None else language_models.read_tokenizer(tokenizer)
    opened = language_models.open_language_model(model, tokens, None, device, never=language_models.NO_TEXT)
    for sentence in opened.sample(sentences, temperature, seed):
        print(sentence)
