"""All settings of a run, and which of them do not go together."""

from __future__ import annotations

from dataclasses import dataclass, field

from las.data.augment import AugmentConfig
from las.data.loader import LoaderConfig
from las.errors import UserError
from las.model.las import ModelConfig
from las.search.beam import SearchConfig
from las.text.normalize import style_named
from las.train.growth import check_growth
from las.train.loop import TrainConfig


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run; a model folder keeps them."""

    init: str = ""  # model name or folder to start from; empty: random weights
    style: str = "basic"  # how transcripts are normalised before errors are counted
    model: ModelConfig = field(default_factory=ModelConfig)
    data: LoaderConfig = field(default_factory=LoaderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)

    def __post_init__(self) -> None:
        style_named(self.style)
        check_growth(self.train.growth, len(self.model.listener.reduce))
        if self.init and self.train.growth:
            raise UserError(f"train.growth with init={self.init}: a trained listener has grown already; give only one")
        if self.train.mwer.hypotheses and not self.init:
            raise UserError("train.mwer.hypotheses without init: it is for models that are trained; give init=MODEL")
        _check_parts_fit(self.model, self.train)


def _check_parts_fit(model: ModelConfig, train: TrainConfig) -> None:
    """Raise `UserError` for training craft that has nothing to work on in this model."""
    objective = train.objective
    if objective.guide_weight and model.speller.context != "attention":
        raise UserError(
            f"train.objective.guide_weight {objective.guide_weight}: with model.speller.context "
            f"{model.speller.context} there is no attention to guide; set one to 0, or the other to attention"
        )
    if objective.passes == 2:
        _check_passes_differ(model, train)
    if objective.ctc_weight_to is not None and not model.ctc:
        raise UserError(
            f"train.objective.ctc_weight_to {objective.ctc_weight_to}: with model.ctc=false there is no CTC loss to "
            "weigh; set one to null, or the other to true"
        )
    if train.sampling.share and model.ctc and objective.ctc_weight == 1 and objective.ctc_weight_to is None:
        raise UserError(
            f"train.sampling.share {train.sampling.share}: with train.objective.ctc_weight 1 the speller learns "
            "nothing from what it reads; set one to 0, or the other below 1"
        )


def _check_passes_differ(model: ModelConfig, train: TrainConfig) -> None:
    """Raise `UserError` for a consistency of two passes that has nothing to compare."""
    masks, objective = model.spec_augment, train.objective
    if objective.ctc_consistency and not model.ctc:
        raise UserError(
            f"train.objective.ctc_consistency {objective.ctc_consistency}: with model.ctc=false there is no CTC "
            "branch; set one to 0, or the other to true"
        )
    if train.mwer.hypotheses:
        raise UserError("train.mwer.hypotheses with train.objective's consistency: give only one")
    drops = max(model.listener.dropout, model.speller.dropout, train.sampling.share)
    speeds = len(set(objective.pass_speeds)) > 1
    if not (drops or speeds or masks.frequency_masks or masks.time_masks or masks.time_warp):
        raise UserError(
            "train.objective's consistency without masks and dropout: two passes say the same, and the second takes "
            "time; give model.spec_augment masks, model.listener.dropout or model.speller.dropout"
        )
