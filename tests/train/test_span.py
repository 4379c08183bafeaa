from __future__ import annotations

import pytest

from las.errors import UserError
from las.train.span import check_span, is_on


def test_an_end_of_zero_never_comes():
    assert not is_on(4, 5, 0)
    assert is_on(5, 5, 0)
    assert is_on(10**9, 5, 0)


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (0, -1), (3, 3), (3, 2)])
def test_an_empty_span_is_refused(start, end):
    with pytest.raises(UserError, match=rf"^x_start {start}, x_end {end}: the end must come after the start, or be 0"):
        check_span("x", start, end)
