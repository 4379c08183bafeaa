"""An update -> the share of tokens that the speller reads from itself: scheduled sampling.

Bengio et al. 2015 (arXiv:1506.03099). A speller that has only ever read right tokens does not know what to do after a
wrong one; so more and more of those that it reads are drawn from what it says itself. The three curves are those of
their section 2.4 turned round, 1 - epsilon, each with one number that has a meaning, the updates that it takes, in
place of its constants. LAS drew a tenth throughout (Chan et al. 2015); Chiu et al. 2018 (arXiv:1712.01769), section
2.3.2, rose to 0.4 by a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass

from las.errors import UserError

SHAPES = ("linear", "exponential", "inverse_sigmoid")


@dataclass(frozen=True)
class SamplingConfig:
    """Scheduled sampling."""

    share: float = 0.0  # tokens that are in the end drawn from the speller's own distribution instead of read from the
    #                     transcript, such as 0.1; 0: none
    start: int = 0  # first update with it
    over: int = 0  # updates after that over which the share rises from 0; 0: it is there at once
    shape: str = "linear"  # how it rises: linear; exponential, fast at first; inverse_sigmoid, slow at first and in the
    #                        end. The last two reach 99% after `over` updates and then creep on

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"sampling.share {self.share} must be between 0 and 1")
        if min(self.start, self.over) < 0:
            raise UserError("sampling: start and over must be 0 or more")
        if self.shape not in SHAPES:
            raise UserError(f"sampling.shape {self.shape!r}: wanted one of {', '.join(SHAPES)}")

    def share_at(self, update: int) -> float:
        """The share of tokens drawn at an update, counted from 0.

        >>> config = SamplingConfig(share=0.4, start=100, over=1000)
        >>> [config.share_at(update) for update in (0, 100, 600, 1100, 5000)]
        [0.0, 0.0, 0.2, 0.4, 0.4]
        """
        if update < self.start:
            return 0.0
        if not self.over:
            return self.share
        way = (update - self.start) / self.over
        if self.shape == "linear":
            return self.share * min(1.0, way)
        if self.shape == "exponential":
            return self.share * (1 - 0.01**way)  # 1 - k^i
        return self.share / (1 + 99 ** (1 - 2 * way))  # 1 - k / (k + exp(i / k)) has this form, halfway at i = k ln k
