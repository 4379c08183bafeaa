"""A trained model folder -> las/pretrained/NAME, weights as float16 or int8.

    python tools/release_model.py RUN/model NAME [float16 | int8]

NAME is a name of letters, digits, - and _; what ships under it is replaced.

What lies beside the model comes along: its language_model/ (stored in the same way) and its calibration.json. The
cards are kept if there are some already: they are written by hand, with data, WER, limits and licence.
"""

import re
import sys
from pathlib import Path

import torch
import yaml

from las.checkpoint import CARD, read_model, write_model
from las.errors import UserError
from las.recipe.models import PRETRAINED
from las.transcribe.fitted import FILE

STORES = {"float16": torch.float16, "int8": torch.int8}


def release(source: Path, target: Path, store: torch.dtype = torch.float16) -> None:
    """Write the model at `source` to `target`, in place of one that is there."""
    parts = ["", "language_model"] if (source / "language_model").is_dir() else [""]
    cards = {
        part: (target / part / CARD).read_text(encoding="utf-8") for part in parts if (target / part / CARD).is_file()
    }
    models = {part: read_model(source / part) for part in parts}  # all first: source and target may be one folder
    written = {part: (source / part / CARD).read_text(encoding="utf-8") for part in parts if part not in cards}
    fitted = (source / FILE).read_bytes() if (source / FILE).is_file() else None
    for part, model in models.items():  # the first replaces the whole folder
        card = cards.get(part) or written[part]
        config = yaml.safe_dump(model.config, sort_keys=False, allow_unicode=True)
        write_model(target / part, config, model.weights, model.tokenizer, model.vocabulary, card, store)
    if fitted is not None:
        (target / FILE).write_bytes(fitted)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], *([name] for name in STORES)):
        sys.exit(__doc__)
    if not re.fullmatch(r"[\w-]+", sys.argv[2]):
        sys.exit(f"{sys.argv[2]}: a name of letters, digits, - and _, under which it ships")
    target = PRETRAINED / sys.argv[2]
    try:
        release(Path(sys.argv[1]), target, STORES[(sys.argv[3:] or ["float16"])[0]])
    except UserError as error:
        sys.exit(str(error))
    print(f"{target}: {sum(file.stat().st_size for file in target.rglob('*') if file.is_file()) / 1e6:.2f} MB")
