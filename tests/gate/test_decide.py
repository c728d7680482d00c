"""What is promoted, and what is not, from evidence that is written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.config import GateConfig
from pipelines.gate.compare import Comparison, compare
from pipelines.gate.decide import Decision, decide
from pipelines.gate.evidence import Evidence, Parity, Recall
from pipelines.gate.markdown import render_decision

PROVED = Parity(holds=True, text="the export is proved")
CLASSES = ["cat", "dog"]


def answers(right: int, wrong_cats: int, wrong_dogs: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Answers about 500 cats, then 500 dogs: so many of each are wrong, and these counted from `right` on."""
    labels = np.repeat([0, 1], 500)
    for start, wrong in ((right, wrong_cats), (500 + right, wrong_dogs)):
        labels[start : start + wrong] = 1 - labels[start]
    return labels


def compared(champion: Any, challenger: Any) -> Comparison:
    return compare(np.repeat([0, 1], 500), champion, challenger, classes=CLASSES, confidence=0.95)


def decided(comparison: Comparison | None, config: GateConfig | None = None, **evidence: Any) -> Decision:
    known: dict[str, Any] = {"fair": 1_000, "known": 1_000, "unchanged": comparison, **evidence}
    settings = config or GateConfig()
    return decide(Evidence("new", "old", PROVED, comparison=comparison, **known), settings)


def failed(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_a_better_one_is_promoted() -> None:
    decision = decided(compared(answers(0, 40, 40), answers(0, 10, 10)))
    assert decision.promote
    assert "the challenger is better: accuracy 0.9800, champion 0.9200, difference +0.0600" in decision.reasons[-2]


def test_one_that_is_as_good_is_promoted_with_ties_everywhere() -> None:
    same = answers(0, 20, 20)
    decision = decided(compared(same, same))
    assert decision.promote
    assert "the challenger is not worse by more than 0.02" in " ".join(decision.reasons)
    assert decided(compared(same, same), GateConfig(margin=0)).promote


def test_one_that_may_be_worse_is_refused_and_the_numbers_say_so() -> None:
    decision = decided(compared(answers(0, 20, 20), answers(100, 35, 35)))
    assert not decision.promote
    assert failed(decision) == ["accuracy"]
    assert len(decision.reasons) == 1
    assert "may be worse by more than 0.02: accuracy 0.9300, champion 0.9600, difference -0.0300" in decision.reasons[0]
    assert decided(compared(answers(0, 20, 20), answers(100, 35, 35)), GateConfig(margin=0.06)).promote


def test_one_that_is_worse_is_called_so() -> None:
    decision = decided(compared(answers(0, 0), answers(0, 100, 100)))
    assert "the challenger is worse by more than 0.02" in " ".join(decision.reasons)


def test_a_class_that_falls_is_not_paid_for_by_another() -> None:
    decision = decided(compared(answers(0, 5, 100), answers(0, 56, 0)))
    assert failed(decision) == ["classes"]
    assert decision.reasons == ("recall falls by more than 0.1: 'cat' from 0.990 to 0.888 (500 images)",)
    assert decided(compared(answers(0, 5, 100), answers(0, 55, 0))).promote  # by .1 and no more


def test_a_class_that_is_too_small_is_not_judged_and_this_is_said() -> None:
    comparison = compared(answers(0, 5, 100), answers(0, 56, 0))
    decision = decided(comparison, GateConfig(class_support=501))
    assert decision.promote
    assert "2 of 2 have fewer than 501 images and were not judged" in decision.reasons[-1]


@pytest.mark.parametrize("fair", [0, 1, 49])
def test_too_few_images_show_nothing(fair: int) -> None:
    same = answers(0, 0)
    decision = decided(compared(same, same) if fair else None, fair=fair, known=fair, excluded=3)
    assert failed(decision) == ["images"]
    assert decision.reasons == (
        f"{fair} test images are fair to both models, and 3 are left out that one of them has seen;"
        " `gate.least_images` asks for 50",
    )


def test_an_export_that_is_not_proved_is_refused_whatever_it_scores() -> None:
    unproved = Parity(holds=False, text="the export is not proved")
    for config in (GateConfig(), GateConfig(enabled=False)):
        for champion in (None, "old"):
            decision = decide(Evidence("new", champion, unproved), config)
            assert failed(decision) == ["parity"]


def test_the_first_model_is_promoted_and_the_reason_is_said() -> None:
    decision = decide(Evidence("new", None, PROVED), GateConfig())
    assert decision.promote
    assert "there is no champion yet, and any model serves better than none" in decision.reasons


def test_a_vanished_class_is_refused_unless_allowed_even_where_nothing_is_compared() -> None:
    same = compared(answers(0, 0), answers(0, 0))
    decision = decided(same, vanished=("a\nfox",))
    assert failed(decision) == ["vanished classes"]
    assert r"the champion knows 'a\nfox', of which the data has nothing any more; put it back" in decision.reasons[0]
    assert decided(same, GateConfig(vanished_classes="allow"), vanished=("fox",)).promote
    assert not decide(Evidence("new", "old", PROVED, vanished=("fox",)), GateConfig(enabled=False)).promote


def test_a_new_class_must_be_known_more_often_than_not_where_there_are_enough_images() -> None:
    same = compared(answers(0, 0), answers(0, 0))
    assert decided(same, new={"fox": Recall(support=30, recall=0.5)}).promote
    refused = decided(same, new={"fox": Recall(support=30, recall=0.4)})
    assert refused.reasons == ("'fox' is new, with a recall of 0.400; 0.5 is asked for",)
    small = decided(same, new={"fox": Recall(support=29, recall=0.0), "owl": None})
    assert small.promote
    assert "'fox' is new, and was not judged: a recall of 0.000 on 29 images" in small.reasons


def test_changed_labels_beyond_a_clean_up_are_refused() -> None:
    same = compared(answers(0, 0), answers(0, 0))
    assert decided(same, known=100, relabelled=10).promote
    refused = decided(same, known=100, relabelled=11)
    assert "11 of 100 test images that the champion's data held too have another label now" in refused.reasons[0]


def known_and_new(known: int, *, right: bool = False) -> dict[str, Comparison]:
    """So many known test images, which only the champion gets right, and thrice as many with labels that are swapped."""
    labels = np.arange(4 * known) % 2
    true = np.concatenate([labels[:known], 1 - labels[known:]])
    challenger = np.concatenate([true[:known] if right else 1 - true[:known], labels[known:]])
    kinds = {"comparison": slice(None), "unchanged": slice(known)}
    return {
        kind: compare(labels[chosen], true[chosen], challenger[chosen], classes=CLASSES, confidence=0.95)
        for kind, chosen in kinds.items()
    }


def test_new_images_with_wrong_labels_do_not_pay_for_a_fall_on_known_ones() -> None:
    evidence = known_and_new(100)
    decision = decided(**evidence, fair=400, known=100)
    assert evidence["comparison"].difference > 0.4
    assert failed(decision) == ["accuracy on unchanged images", "classes on unchanged images"]
    start = "on the 100 test images that the champion's data held with the same label, "
    assert decision.reasons[0].startswith(f"{start}the challenger is worse by more than 0.02: accuracy 0.0000")
    assert decision.reasons[1].startswith(f"{start}recall falls by more than 0.1: 'cat' from 1.000 to 0.000")
    assert decision.model_dump(mode="json")["unchanged"]["only_champion_right"] == 100
    assert decided(**known_and_new(100, right=True), fair=400, known=100).promote


def test_too_few_known_images_are_not_judged_apart_and_this_is_said() -> None:
    decision = decided(**known_and_new(49), fair=196, known=49)
    assert decision.promote
    text = "49 test images that the champion's data held with the same label were not judged apart: too few to tell"
    assert text in decision.reasons
    nothing = decided(known_and_new(100)["comparison"], unchanged=None, fair=400, known=0)
    assert any(reason.startswith("0 test images that the champion's data held") for reason in nothing.reasons)


def test_a_few_known_images_need_not_show_what_so_few_can_not() -> None:
    """Two models as good as each other, that disagree on three of the 60 images which both had."""
    disagreed = compare(*np.array([[0] * 60, [0] * 58 + [1] * 2, [1] + [0] * 59]), classes=CLASSES, confidence=0.95)
    whole = known_and_new(1_000, right=True)["comparison"]
    assert disagreed.interval[0] < -0.02
    assert decided(whole, unchanged=disagreed, fair=4_000, known=60).promote


def test_known_images_that_are_all_there_are_need_no_judgement_apart() -> None:
    same = compared(answers(0, 0), answers(0, 0))
    assert [check.name for check in decided(same, unchanged=same).checks] == [
        "parity",
        "images",
        "labels",
        "accuracy",
        "classes",
    ]


def test_switched_off_it_promotes_and_says_so() -> None:
    decision = decide(Evidence("new", "old", PROVED), GateConfig(enabled=False))
    assert decision.promote
    assert "nothing was compared: `gate.enabled` is false" in decision.reasons


def test_a_decision_survives_json_and_is_a_table_for_people() -> None:
    decision = decided(compared(answers(0, 5, 100), answers(0, 56, 0)), vanished=("a|b\n# c",))
    stored = decision.model_dump(mode="json")
    assert stored["promote"] is False
    assert stored["reasons"] == list(decision.reasons)
    computed = ("promote", "reasons")
    assert Decision.model_validate({name: value for name, value in stored.items() if name not in computed}) == decision
    text = render_decision(decision)
    assert text.startswith("# Not promoted: the champion stays\n")
    assert "| ✗ | vanished classes | the champion knows 'a\\|b\\n# c'" in text
    assert "| 'cat' | 500 | 0.990 | 0.888 |" in text
