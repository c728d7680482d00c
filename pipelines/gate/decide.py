"""The decision: promote a challenger or keep the champion, with every number and reason. Imports no TensorFlow.

What happens where there is nothing to compare by, as one who sleeps while a schedule retrains would want it:

- **no champion**: the challenger is promoted if its export is proved, since any model serves better than none;
- **a class vanished** (the champion knows it, the challenger does not): refused, unless the recipe's `gate.vanished_classes`
  allows it. A folder that was deleted, renamed or not mounted looks just so, and a model that no longer knows a class may
  score higher for it;
- **a new class** (the champion does not know it): its images are no part of the comparison, which the champion could only lose
  by them, and which a rise there would let the other classes pay for. The challenger must get it right more often than wrong
  (`gate.new_class_recall`), where there are enough images to tell;
- **labels changed** on more of the test images than a clean-up explains: refused. The champion would be judged by labels that
  may be wrong, and a challenger that learned such labels would win;
- **new test images**: their labels may be wrong as well, and nothing tells. So the challenger must not be shown to be worse on
  those alone that the champion's data held too, with the label that they have now, where there are `gate.least_images`;
- **too few fair images**: refused, because nothing was shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, computed_field

from pipelines.config import GateConfig
from pipelines.errors import quoted
from pipelines.gate.compare import Comparison
from pipelines.gate.evidence import Evidence, Recall


class Check(BaseModel):
    """One condition, whether it is met, and the numbers that say so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    text: str


class Decision(BaseModel):
    """What `gate.json` holds, besides the names of excluded images.

    Attributes:
        checks: in the order in which they were made; the challenger is promoted if each is passed.
        settings: the recipe's section.
        comparison: on all fair images of the classes that both know.
        unchanged: on those alone that the champion's data held with the same label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checks: tuple[Check, ...]
    settings: GateConfig
    challenger_sha256: str
    champion_sha256: str | None
    fair_images: int | None
    excluded_images: int
    new_classes: dict[str, Recall | None]
    vanished_classes: tuple[str, ...]
    comparison: Comparison | None
    unchanged: Comparison | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def promote(self) -> bool:
        """Whether the challenger becomes the champion."""
        return all(check.passed for check in self.checks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reasons(self) -> tuple[str, ...]:
        """Why: the conditions that are not met, or, where all are, these."""
        return tuple(check.text for check in self.checks if check.passed == self.promote)


def decide(evidence: Evidence, config: GateConfig) -> Decision:
    """Weighs the evidence; see the module."""
    return Decision(
        checks=tuple(_checks(evidence, config)),
        settings=config,
        challenger_sha256=evidence.challenger_sha256,
        champion_sha256=evidence.champion_sha256,
        fair_images=evidence.fair,
        excluded_images=evidence.excluded,
        new_classes=dict(evidence.new),
        vanished_classes=evidence.vanished,
        comparison=evidence.comparison,
        unchanged=evidence.unchanged,
    )


def _checks(evidence: Evidence, config: GateConfig) -> Iterator[Check]:
    yield Check(name="parity", passed=evidence.parity.holds, text=evidence.parity.text)
    if evidence.champion_sha256 is None:
        yield Check(name="champion", passed=True, text="there is no champion yet, and any model serves better than none")
        return
    yield from _judge_classes(evidence, config)
    if not config.enabled:
        yield Check(name="comparison", passed=True, text="nothing was compared: `gate.enabled` is false")
        return
    if evidence.fair is not None:
        yield _judge_number(evidence.fair, evidence.excluded, config)
        yield _judge_labels(evidence, config)
    if evidence.comparison is not None:
        yield _judge_accuracy(evidence.comparison, config)
        yield _judge_recalls(evidence.comparison, config)
        yield from _judge_unchanged(evidence.comparison, evidence.unchanged, config)


def _judge_classes(evidence: Evidence, config: GateConfig) -> Iterator[Check]:
    if evidence.vanished:
        gone = ", ".join(map(quoted, evidence.vanished))
        text = f"the champion knows {gone}, of which the data has nothing any more"
        if config.vanished_classes == "refuse":
            text += "; put it back, or say `gate.vanished_classes: allow`"
        yield Check(name="vanished classes", passed=config.vanished_classes == "allow", text=text)
    for name, figures in evidence.new.items():
        if figures is None or figures.support < config.class_support:
            images = "" if figures is None else f": a recall of {figures.recall:.3f} on {figures.support} images"
            yield Check(name="new class", passed=True, text=f"{quoted(name)} is new, and was not judged{images}")
            continue
        text = f"{quoted(name)} is new, with a recall of {figures.recall:.3f}; {config.new_class_recall:g} is asked for"
        yield Check(name="new class", passed=figures.recall >= config.new_class_recall, text=text)


def _judge_number(fair: int, excluded: int, config: GateConfig) -> Check:
    text = f"{fair} test images are fair to both models"
    if excluded:
        text += f", and {excluded} are left out that one of them has seen"
    if fair >= config.least_images:
        return Check(name="images", passed=True, text=text)
    return Check(name="images", passed=False, text=f"{text}; `gate.least_images` asks for {config.least_images}")


def _judge_labels(evidence: Evidence, config: GateConfig) -> Check:
    text = f"{evidence.relabelled} of {evidence.known} test images that the champion's data held too have another label now"
    passed = evidence.relabelled <= config.relabelled * evidence.known
    return Check(name="labels", passed=passed, text=text if passed else f"{text}; `gate.relabelled` is {config.relabelled:g}")


def _judge_unchanged(whole: Comparison, unchanged: Comparison | None, config: GateConfig) -> Iterator[Check]:
    """Whether it became worse where no new label can make up for that; nothing where these are all images.

    Not asked to be shown to be no worse: known images may be few beside new ones, and too few for that however good it is.
    """
    images = unchanged.images if unchanged else 0
    if images == whole.images:
        return
    which = f"{images} test images that the champion's data held with the same label"
    if unchanged is None or images < config.least_images:
        yield Check(name="unchanged images", passed=True, text=f"{which} were not judged apart: too few to tell")
        return
    fell = unchanged.difference < -config.margin and unchanged.interval[1] < 0
    said = f"the challenger is {'' if fell else 'not shown to be '}worse by more than {config.margin:g}: {_numbers(unchanged)}"
    recalls = _judge_recalls(unchanged, config)
    for name, passed, text in (("accuracy", not fell, said), ("classes", recalls.passed, recalls.text)):
        yield Check(name=f"{name} on unchanged images", passed=passed, text=f"on the {which}, {text}")


def _numbers(comparison: Comparison) -> str:
    low, high = comparison.interval
    return (
        f"accuracy {comparison.challenger_accuracy:.4f}, champion {comparison.champion_accuracy:.4f}, difference"
        f" {comparison.difference:+.4f} ({comparison.confidence:.3g} interval {low:+.4f} to {high:+.4f}, McNemar p"
        f" {comparison.mcnemar_p:.3g})"
    )


def _judge_accuracy(comparison: Comparison, config: GateConfig) -> Check:
    """Whether the challenger is better, by McNemar's test, or not worse, by the interval and the margin."""
    low, high = comparison.interval
    numbers = _numbers(comparison)
    if comparison.difference > 0 and comparison.mcnemar_p <= 1 - config.confidence:
        return Check(name="accuracy", passed=True, text=f"the challenger is better: {numbers}")
    passed = low >= -config.margin
    verb = "is not" if passed else "may be" if high >= -config.margin else "is"
    return Check(name="accuracy", passed=passed, text=f"the challenger {verb} worse by more than {config.margin:g}: {numbers}")


def _judge_recalls(comparison: Comparison, config: GateConfig) -> Check:
    judged = {name: figures for name, figures in comparison.per_class.items() if figures.support >= config.class_support}
    fallen = {name: figures for name, figures in judged.items() if figures.fall > config.class_margin}
    if not fallen:
        small = len(comparison.per_class) - len(judged)
        text = f"no class falls by more than {config.class_margin:g} in recall"
        if small:
            text += (
                f"; {small} of {len(comparison.per_class)} have fewer than {config.class_support} images and were not judged"
            )
        return Check(name="classes", passed=True, text=text)
    falls = (
        f"{quoted(name)} from {figures.champion_recall:.3f} to {figures.challenger_recall:.3f} ({figures.support} images)"
        for name, figures in fallen.items()
    )
    return Check(name="classes", passed=False, text=f"recall falls by more than {config.class_margin:g}: {', '.join(falls)}")
