"""When layers join, and schedules that cannot be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from las.errors import UserError
from las.train.growth import check_growth, check_growth_ends, layers_at


@given(st.sets(st.integers(1, 50), max_size=4))
def test_one_layer_joins_at_each_update_named_and_in_the_end_all_run(named):
    growth, layers = sorted(named), 6
    running = [layers_at(update, growth, layers) for update in range(-1, 52)]
    assert running[0] == layers - len(growth)
    assert running[-1] == layers
    more = [now - before for before, now in pairwise(running)]
    assert more == [int(update in growth) for update in range(len(more))]


def test_two_layers_run_from_the_start():
    check_growth((), 1)
    check_growth((10, 20), 4)
    with pytest.raises(UserError, match=r"train.growth \[10, 20\]: 2 layers cannot join a listener of 3 \(model.list"):
        check_growth((10, 20), 3)


def test_the_last_layer_joins_before_the_end():
    def lazily():
        yield from (10, 10)
        raise AssertionError("read further than needed")

    check_growth_ends((5, 19), lazily())
    check_growth_ends((), [])
    with pytest.raises(UserError, match=r"train.growth \[5, 20\]: the run is over before the last layer joins"):
        check_growth_ends((5, 20), [10, 10])
