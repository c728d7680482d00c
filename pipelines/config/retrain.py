"""How a model is trained that is to take another's place."""

from __future__ import annotations

from pydantic import Field

from pipelines.config.section import Section


class RetrainConfig(Section):
    """Read by the flow `retrain` alone.

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
        " start, so that a retraining costs what is new; unset: all are shown (replay, or rehearsal: Robins, 1995)",
    )
