"""Which part of a run bounds it, by the rates that `pipelines.profile` measured. Imports no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """Images per second of each part, and two shares of time; None where the recipe has no such part.

    With stored activations a step learns from these, and input is the reading of them.

    Attributes:
        read: the bytes of the files, which may come from the system's cache.
        examine: the check for damage, on all cores.
        decode: decoding and resizing, on all cores.
        gather: copying images out of the store, on one core.
        warp: the geometric augmentation, on one core.
        colour: the augmentation of colours, on one core.
        input: these three together, as training gets them, with nothing else running.
        embed: the frozen part of the network, once for each view of each image; None where its work is not stored.
        views: how many views there are.
        head_step: the work of a step that trains the head, while its input is made beside it.
        head_wait: the share of its time, 0 to 1, that it waits for that input.
        fine_tune_step, fine_tune_wait: of a step that trains the top of the backbone too.
    """

    read: float
    examine: float
    decode: float
    gather: float
    warp: float | None
    colour: float | None
    input: float
    embed: float | None
    views: int
    head_step: float | None
    head_wait: float | None
    fine_tune_step: float | None
    fine_tune_wait: float | None


def judge(rates: Rates, *, head_epochs: int, fine_tune_epochs: int) -> str:
    """Says in one line which part takes most of a first run's time, and what to change.

    Reading, examining and decoding count once per image, embedding once per view, steps and waiting once per epoch.
    """
    seconds = {name: 1 / getattr(rates, name) for name in ("read", "examine", "decode")}
    head, fine_tune = head_epochs / (rates.head_step or math.inf), fine_tune_epochs / (rates.fine_tune_step or math.inf)
    seconds |= {"head": head, "fine_tune": fine_tune, "embed": rates.views / rates.embed if rates.embed else 0.0}
    seconds["input"] = head * _waited(rates.head_wait or 0) + fine_tune * _waited(rates.fine_tune_wait or 0)
    bound = max(seconds, key=lambda name: seconds[name])
    once = "once per image, and later runs take it from the home"
    match bound:
        case "read":
            return f"reading the files bounds the run: {rates.read:,.0f} images/s, {once}; a faster disk would help"
        case "examine" | "decode":
            what = "decoding" if bound == "decode" else "the check for damaged files"
            rate = getattr(rates, bound)
            return f"{what} bounds the run: {rate:,.0f} images/s, {once}; photos of fewer pixels or more cores would help"
        case "embed":
            return (
                f"the frozen part of the network bounds the run: {rates.embed:,.0f} images/s for {rates.views} views, {once};"
                " fewer `cache.views`, a smaller `image_size` or a lighter `model.backbone` would help"
            )
        case "input":
            return f"the input bounds the run: {rates.input:,.0f} images/s, and {_shares(rates)}; {_advise_on_input(rates)}"
    step, name = (rates.head_step or 0, "head") if bound == "head" else (rates.fine_tune_step or 0, "fine-tune")
    fewer = "fewer `fine_tune.layers`, " if bound == "fine_tune" else ""
    return (
        f"the {name} step bounds the run: {step:,.0f} images/s while input gives {rates.input:,.0f};"
        f" {fewer}a smaller `image_size` or a lighter `model.backbone` would help"
    )


def _waited(share: float) -> float:
    """Time spent waiting, in units of the time spent working."""
    return share / max(1 - share, 1e-6)


def _shares(rates: Rates) -> str:
    waits = {"head": rates.head_wait, "fine-tune": rates.fine_tune_wait}
    shares = [f"{wait:.0%} of a {name} step" for name, wait in waits.items() if wait is not None]
    return f"waiting for it takes {', '.join(shares)}"


def _advise_on_input(rates: Rates) -> str:
    parts = {"gather": rates.gather, "warp": rates.warp, "colour": rates.colour}
    slowest = min((rate, name) for name, rate in parts.items() if rate is not None)[1]
    if slowest == "gather":
        return "most of it is `gather`: a faster disk, memory that holds the whole store, or a smaller `image_size` would help"
    return f"most of it is `{slowest}`: fewer changes in `augment`, more cores or a smaller `image_size` would help"
