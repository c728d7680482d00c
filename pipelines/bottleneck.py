"""Which part of a run bounds it, by the rates that `pipelines.profile` measured. Imports no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Phase = Literal["head", "fine_tune"]
Layout = Literal["decoded", "encoded"]  # of the image store
_IMAGES = "images"  # the input that phases share which learn from the image store
_STEP_NAMES: dict[Phase, str] = {"head": "head", "fine_tune": "fine-tune"}


@dataclass(frozen=True)
class Rates:
    """Images per second of each part, and two shares of time; None where the recipe has no such part.

    Attributes:
        read: the bytes of the files, which may come from the system's cache.
        examine: the check for damage, on all cores.
        decode: decoding and resizing, on all cores.
        gather: copying images out of the store, or decoding them where its layout is `encoded`, on one core.
        warp: the geometric augmentation and RandAugment, its colours included, on one core.
        colour: the augmentation of colours and random erasing, on one core.
        input: these three together, and MixUp and CutMix, on all cores with nothing else running: batches of images.
        embed: the frozen part of the network, once for each view of each image; None where its work is not stored.
        views: how many views there are.
        head_input: batches of what the head learns from, with nothing else running: as `input`, or stored features.
        head_step: the work of a step that trains the head, while its input is made beside it.
        head_wait: the share of its time, 0 to 1, that it waits for that input.
        fine_tune_input, fine_tune_step, fine_tune_wait: of a step that trains the top of the backbone too.
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
    head_input: float | None
    head_step: float | None
    head_wait: float | None
    fine_tune_input: float | None
    fine_tune_step: float | None
    fine_tune_wait: float | None


def judge(
    rates: Rates,
    *,
    head_epochs: int,
    fine_tune_epochs: int,
    stored: Collection[Phase] = (),
    layout: Layout = "decoded",
    from_scratch: bool = False,
) -> str:
    """Says in one line which part takes most of a first run's time, and what to change.

    Reading, examining and decoding count once per image, embedding once per view, steps and waiting once per epoch.

    Args:
        rates: of the parts.
        head_epochs: of phase 1.
        fine_tune_epochs: of phase 2.
        stored: the phases that learn from stored activations, not from images.
        layout: of the image store.
        from_scratch: whether all of the model learns, in phase 2 alone.
    """
    seconds: dict[str, float] = {name: 1 / getattr(rates, name) for name in ("read", "examine", "decode")}
    seconds["embed"] = rates.views / rates.embed if rates.embed else 0.0
    epochs: dict[Phase, int] = {"head": head_epochs, "fine_tune": fine_tune_epochs}
    fed_by: dict[str, list[Phase]] = {}
    for phase, times in epochs.items():
        step, wait = getattr(rates, f"{phase}_step"), getattr(rates, f"{phase}_wait")
        seconds[phase] = times / (step or math.inf)
        if wait is not None:
            source = f"{phase} activations" if phase in stored else _IMAGES
            fed_by.setdefault(source, []).append(phase)
            seconds[source] = seconds.get(source, 0.0) + seconds[phase] * _waited(wait)
    bound = max(seconds, key=lambda name: seconds[name])
    if bound in fed_by:
        return _judge_input(rates, fed_by[bound], advice=_advise_on_images(rates, layout) if bound == _IMAGES else _ON_STORED)
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
    return _judge_step(rates, "head" if bound == "head" else "fine_tune", from_scratch=from_scratch)


def _judge_step(rates: Rates, phase: Phase, *, from_scratch: bool) -> str:
    step, given = getattr(rates, f"{phase}_step"), getattr(rates, f"{phase}_input")
    lighter = "smaller `model.blocks`" if from_scratch else "a lighter `model.backbone`"
    fewer = "fewer `fine_tune.layers`, " if phase == "fine_tune" and not from_scratch else ""
    return (
        f"the {_STEP_NAMES[phase]} step bounds the run: {step:,.0f} images/s while input gives {given:,.0f};"
        f" {fewer}a smaller `image_size` or {lighter} would help"
    )


def _judge_input(rates: Rates, phases: Collection[Phase], *, advice: str) -> str:
    """Of the input that some phases share."""
    given = min(getattr(rates, f"{phase}_input") for phase in phases)
    shares = [f"{getattr(rates, f'{phase}_wait'):.0%} of a {_STEP_NAMES[phase]} step" for phase in phases]
    return f"the input bounds the run: {given:,.0f} images/s, and waiting for it takes {', '.join(shares)}; {advice}"


def _waited(share: float) -> float:
    """Time spent waiting, in units of the time spent working."""
    return share / max(1 - share, 1e-6)


# A batch costs half a millisecond of calls whatever is in it (decision 10), and features are small.
_ON_STORED = (
    "it is the reading of stored activations: a larger `batch_size`, memory that holds all of them or a faster disk would help"
)


def _advise_on_images(rates: Rates, layout: Layout) -> str:
    parts = {"gather": rates.gather, "warp": rates.warp, "colour": rates.colour}
    slowest = min((rate, name) for name, rate in parts.items() if rate is not None)[1]
    if slowest != "gather":
        return f"most of it is `{slowest}`: fewer changes in `augment`, more cores or a smaller `image_size` would help"
    if layout == "encoded":
        return (
            "most of it is `gather`, which decodes the store's JPEGs: `store.layout: decoded`, or `auto` with a larger"
            " `store.budget_gib`, would help where the disk has room, and so would more cores"
        )
    return "most of it is `gather`: a faster disk, memory that holds the whole store, or a smaller `image_size` would help"
