"""How a model is trained that is to take another's place."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipelines.config.section import Section


class RetrainConfig(Section):
    """Read where there is a champion to begin with: by the flow `retrain`, and by a training that is given one.

    With a warm start the head phase is left out, since the champion's head has learned already, and `fine_tune` goes on from
    the champion's weights. It is done only where classes, network and frozen layers are the champion's; else, as said in a
    line, training starts afresh.
    """

    warm_start: bool = Field(
        False,
        description="begin with the champion's weights; it saves time, and tends to generalise worse (Ash and Adams, 2020)",
    )
    epochs: int = Field(
        3, ge=1, le=10_000, description="of `fine_tune` after a warm start, in place of its own: about half of its default"
    )
    replay: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="of the training images that the champion has learned, so many are shown with each new one after a warm"
        " start, so that phase 2 trains on what is new; unset: all are shown (replay, or rehearsal: Robins, 1995)",
    )

    @model_validator(mode="after")
    def _replays_after_a_warm_start(self) -> Self:
        if self.replay is not None and not self.warm_start:
            raise ValueError("`replay` is of `warm_start: true`: choose that too, or leave it out")
        return self
