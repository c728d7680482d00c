"""What watches an epoch."""

from __future__ import annotations

import math

import pytest

from pipelines.errors import RunError
from pipelines.training.callbacks import StopOnDivergence


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_with_the_way_out(loss: float) -> None:
    watch = StopOnDivergence("head")
    watch.on_train_batch_end(3, {"loss": 0.7})
    watch.on_epoch_end(0, {"val_loss": 0.7})
    with pytest.raises(RunError, match=f"the loss became {loss} at step 4 of phase `head`; lower `head.learning_rate`"):
        watch.on_train_batch_end(3, {"loss": loss})
    with pytest.raises(RunError, match="at the validation after epoch 1 of phase `head`"):
        watch.on_epoch_end(0, {"val_loss": loss})
