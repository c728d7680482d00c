"""Patience, against the Keras callbacks of the same meaning."""

from __future__ import annotations

from types import SimpleNamespace

import keras
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.schedule import Patience

LOSSES = st.lists(st.floats(0, 2).map(lambda loss: round(loss, 3)), min_size=1, max_size=30)


@given(losses=LOSSES, epochs=st.integers(1, 5))
def test_a_phase_ends_when_keras_s_early_stopping_ends_it(losses: list[float], epochs: int) -> None:
    callback = keras.callbacks.EarlyStopping("val_loss", mode="min", patience=epochs)
    callback.set_model(SimpleNamespace(stop_training=False))
    callback.on_train_begin()
    patience = Patience(epochs)
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        assert patience.is_over(loss) is callback.model.stop_training
        if callback.model.stop_training:
            break


@given(losses=LOSSES, epochs=st.integers(1, 5))
def test_the_rate_is_cut_when_keras_s_plateau_cuts_it(losses: list[float], epochs: int) -> None:
    callback = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=epochs)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=1.0)))
    callback.on_train_begin()
    patience, rate = Patience(epochs, least_gain=1e-4), 1.0
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if patience.is_over(loss):
            rate *= 0.5
        assert callback.model.optimizer.learning_rate == rate
