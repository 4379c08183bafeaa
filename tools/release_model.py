"""A trained model folder -> las/pretrained/NAME, weights in half precision.

    python tools/release_model.py RUN/model NAME

The card is kept if there is one already: it is written by hand, with data, WER, limits and licence.
"""

import sys

import yaml

from las.checkpoint import CARD, CONFIG, read_model, write_model
from las.recipe.models import PRETRAINED


def main(source: str, name: str) -> None:
    """Copy the model; its card is that of the run unless las/pretrained/NAME has its own."""
    model = read_model(source)
    target = PRETRAINED / name
    card = target / CARD if (target / CARD).is_file() else model.path / CARD
    config = yaml.safe_dump(model.config, sort_keys=False, allow_unicode=True)
    write_model(
        target, config, model.weights, model.tokenizer, model.vocabulary, card.read_text(encoding="utf-8"), half=True
    )
    size = sum(file.stat().st_size for file in target.iterdir())
    print(f"{target}: {size / 1e6:.2f} MB, {CONFIG} and card included")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
