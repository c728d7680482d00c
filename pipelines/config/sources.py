"""Where images come from, and how they are split."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipelines.config.section import Section

SPLITS: tuple[str, ...] = ("train", "validation", "test")


class SplitConfig(Section):
    """Fractions of the images of each class, drawn from content hashes; 0 leaves a split out.

    Used where the source has no split folders (and to carve a validation split out of `train` where it has none).
    """

    train: float = Field(0.8, gt=0, le=1)
    validation: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    seed: int = Field(1, ge=0, description="of the draw, apart from the seed of training: test images stay test images")
    near_equal_bits: int = Field(
        16,
        ge=0,
        le=64,
        description="images whose 256-bit perceptual hashes differ in at most so many bits share a split (sources/examine.py)",
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the three fractions must sum to 1, and they sum to {total:g}")
        return self


class TfdsSplits(Section):
    """The split of a TFDS data set that each of ours is, in TFDS's notation, such as `train[:80%]`; None leaves one out.

    With all None, the splits named train, validation (or val) and test are taken as they are; where there is one split
    only, all of it is drawn as `split` says.
    """

    train: str | None = Field(None, min_length=1)
    validation: str | None = Field(None, min_length=1)
    test: str | None = Field(None, min_length=1)


class TfdsConfig(Section):
    """Read where SOURCE is `tfds:NAME`, and by `tfds:image_folder`, whose folder is `data_dir`."""

    data_dir: str | None = Field(
        None, min_length=1, description="where TFDS keeps data sets; default: TFDS_DATA_DIR, or ~/tensorflow_datasets, as TFDS"
    )
    splits: TfdsSplits = TfdsSplits()
    download: bool = Field(True, description="fetch and prepare what is not there yet, as tfds.load does")
