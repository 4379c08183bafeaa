"""The number of an update -> how many layers of the listener run: layer-wise growth at the start of training.

Zeyer et al. 2018 (arXiv:1805.03294), as RETURNN's pretraining does it: two layers, with all of the pyramid's reduction
in one max-pooling between them, have an easier time finding where to look; then layer after layer joins. There a new
layer comes on top. Here the top one stays, as the speller knows it; the layers that wait are those below it, and each
pools as many frames as it will join (`las.model.listener.Listener`). So neither the number of frames nor the rate at
which any layer reads ever changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from las.errors import UserError

LEAST = 2  # layers that run from the start: the lowest, which knows the features, and the top, which the speller knows


def layers_at(update: int, growth: Sequence[int], layers: int) -> int:
    """How many of the listener's `layers` run in an update, counted from 0; one more from each update in `growth` on.

    >>> [layers_at(update, (2, 3), layers=4) for update in range(5)]
    [2, 2, 3, 4, 4]
    """
    return layers - sum(update < joins for joins in growth)


def check_growth(growth: Sequence[int], layers: int) -> None:
    """Raise `UserError` where more layers join than a listener of so many `layers` can begin without."""
    if growth and len(growth) > layers - LEAST:
        raise UserError(
            f"train.growth {list(growth)}: {len(growth)} layers cannot join a listener of {layers} "
            f"(model.listener.reduce); it begins with at least {LEAST}"
        )


def check_growth_ends(growth: Sequence[int], updates: Iterable[int]) -> None:
    """Raise `UserError` where a layer joins after the last update of a run; `updates` are those of each epoch.

    They are only read as far as the last layer's joining, so they may be costly to find.
    """
    if growth and all(so_far <= growth[-1] for so_far in accumulate(updates)):
        raise UserError(
            f"train.growth {list(growth)}: the run is over before the last layer joins; give earlier updates, or more "
            "train.epochs"
        )
