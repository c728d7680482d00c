"""What crosses a task boundary: frozen descriptors of artifacts, never the data itself. Imports no TensorFlow.

The names of these classes and of this module are part of the stored format of Prefect's result records: a record that names
a class that is gone counts as a miss, and its stage runs again.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

StoreLayout = Literal["decoded", "encoded"]


class Descriptor(BaseModel):
    """Base: frozen, unknown keys refused, so that a record written by another version is a miss."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Artifact(Descriptor):
    """A finished folder under the home that never changes again.

    Attributes:
        path: of the folder, relative to the home, with forward slashes.
        digest: SHA-256 (hex) over the names and digests of its files, those that hold only measured seconds left out.
    """

    path: str
    digest: str


class Listing(Descriptor):
    """What a scan of a source saw, before any image was opened: paths, labels, given splits and content digests."""

    artifact: Artifact
    classes: tuple[str, ...]
    files: int


class ImageIndex(Descriptor):
    """Every file of a source with its status, label and split (`index.parquet`).

    Attributes:
        classes: class names in label order.
        examples: usable images of each split, in the order train, validation, test; 0 where there is no such split.
        bad_files: how many files were quarantined.
    """

    artifact: Artifact
    classes: tuple[str, ...]
    examples: dict[str, int]
    bad_files: int

    @property
    def evaluation_split(self) -> str:
        """The split that metrics are on: `test`, or `validation` where there is no test split."""
        return "test" if self.examples["test"] else "validation"


class PreparedImages(Descriptor):
    """Resized images: the usable images of an index, each with a row in the image store.

    Attributes:
        artifact: holds `examples.parquet`: path, sha256, label, split and whether the SavedModel can read the file.
        classes: class names in label order.
        store: folder of the shards, relative to the home.
        shards: names of the shards that hold these images; a shard's name is the digest of its content.
        image_size: side of the square images, px.
        resize: how they were made square.
        layout: of the rows: the pixels (`decoded`), or a JPEG of them (`encoded`).
        prepare_only_formats: formats of the source that only `prepare` can read; the exported SavedModel refuses them.
    """

    artifact: Artifact
    classes: tuple[str, ...]
    store: str
    shards: tuple[str, ...]
    image_size: int
    resize: str
    layout: StoreLayout
    prepare_only_formats: tuple[str, ...]


class StoredView(Descriptor):
    """The activations of one augmented view of images.

    Attributes:
        store: folder of the shards, relative to the home.
        shards: names of the shards that hold these images; a shard's name is the digest of its content.
    """

    store: str
    shards: tuple[str, ...]


class StoredActivations(Descriptor):
    """What the frozen part of a network makes of the training and validation images.

    Attributes:
        artifact: says what they are activations of.
        shape: of one image's.
        dtype: `float16` or `float32`.
        views: view 0 is the plain image, of both splits; the others are of training images.
    """

    artifact: Artifact
    shape: tuple[int, ...]
    dtype: str
    views: tuple[StoredView, ...]


class Embedded(Descriptor):
    """What of the frozen part's work is stored.

    Attributes:
        artifact: says what was chosen, and why.
        features: pooled, for the head; None where it is trained on images.
        activations: at the freeze line of phase 2; None where it is trained on images.
    """

    artifact: Artifact
    features: StoredActivations | None
    activations: StoredActivations | None


CHAMPION = "champion"  # the phase of weights that a warm start began with


class TrainedModel(Descriptor):
    """The best weights so far, over all phases that have run, with the history that led to them.

    Attributes:
        artifact: holds `weights.npz`, `history.json` and the measured `seconds.json`.
        phase: the phase that the kept weights come from: `head`, `fine_tune`, or `champion` after a warm start.
        epoch: the epoch of that phase, from 1; 0 of `champion`.
        val_accuracy: of the kept weights, 0 to 1.
        val_loss: of the kept weights, mean cross-entropy in nats.
    """

    artifact: Artifact
    phase: str
    epoch: int
    val_accuracy: float
    val_loss: float


class Evaluation(Descriptor):
    """`metrics.json`, `predictions.parquet` and `confusion_matrix.png` of one split."""

    artifact: Artifact
    split: str
    accuracy: float
    examples: int


class ExportedModel(Descriptor):
    """`model.keras`, `savedmodel/` and `manifest.json`, proved equal to the trained model.

    Attributes:
        max_difference: largest absolute difference of a probability over the compared images.
        compared: how many stored images were compared.
    """

    artifact: Artifact
    max_difference: float
    compared: int


class Candidate(Descriptor):
    """A finished run that is to become a version of a registered model.

    Attributes:
        name: of the registered model.
        content: SHA-256 (hex) over the exported model, the index and the recipe: equal content is one version.
        data: digest of the index.
        gate: digest of the gate's part of the recipe: a candidate is judged once with the same.
        code: versions of the code that made it, by name.
    """

    name: str
    content: str
    data: str
    gate: str
    code: dict[str, str]


class Registration(Descriptor):
    """A candidate's place in the registry.

    Attributes:
        candidate: what was registered.
        version: of the registered model; None where the registry could not be reached and the run waits in the outbox.
        champion: the version that is champion, which the candidate is to be judged against; None where there is none.
        settled: whether it was judged before, or is the champion itself, so that there is nothing left to decide.
    """

    candidate: Candidate
    version: int | None
    champion: int | None
    settled: bool


DESCRIPTORS: dict[str, type[Descriptor]] = {
    descriptor.__name__: descriptor
    for descriptor in (Listing, ImageIndex, PreparedImages, Embedded, TrainedModel, Evaluation, ExportedModel)
}
