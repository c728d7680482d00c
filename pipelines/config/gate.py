"""When a newly trained model may take the place of the one in use."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.section import Section


class GateConfig(Section):
    """What a challenger must show on the current test images before it is promoted; see `pipelines.gate`.

    `enabled: false` compares nothing. An export that is not proved and a class that vanished are refused all the same.
    """

    enabled: bool = Field(True, description="false: a challenger is promoted whatever it scores")
    margin: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="a fall in accuracy that counts as none; to rule out a larger one, of two equal models that disagree on one"
        " image in 20, takes about 500 test images (at a margin of .01: 2,000)",
    )
    confidence: float = Field(
        0.95,
        gt=0.5,
        le=0.999,
        description="of the two-sided interval that may not reach below -margin (ICH guideline E9, 3.3.2), and of McNemar",
    )
    least_images: int = Field(
        50,
        ge=1,
        description="fair test images needed to promote anything: of fewer, one alone is worth more than the margin",
    )
    class_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest fall in the recall of a class; more than this comes by chance once in 280 times where two equal"
        " models disagree on one image in 20 and the class has 30",
    )
    class_support: int = Field(30, ge=1, description="fair test images of a class, without which it is not judged by itself")
    new_class_recall: float = Field(
        0.5, ge=0, le=1, description="least recall of a class that the champion does not know: more often right than wrong"
    )
    relabelled: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of fair test images whose label is another than it was for the champion: wrong labels would"
        " else be judged by wrong labels (Northcutt et al., 2021: errors in ten test sets are 3% on average, 10% at most)",
    )
    vanished_classes: Literal["refuse", "allow"] = Field(
        "refuse",
        description="of classes that the champion knows: the folder of one may have been deleted by accident",
    )
