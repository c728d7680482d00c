"""Run as a script in a process of its own: asks a SavedModel about stored files, with nothing imported but TensorFlow.

Usage: parity_probe.py SAVEDMODEL FOLDER. Begins when a line comes in on standard input, and leaves when none does. FOLDER holds
files `0`, `1`, ...; their answers go to FOLDER/answers.json.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf


def main(saved_model: str, folder: Path) -> None:
    """Writes the probabilities of each file and the class names."""
    serve = tf.saved_model.load(saved_model).signatures["serving_default"]
    count = sum(1 for path in folder.iterdir() if path.name.isdigit())
    contents = [(folder / str(number)).read_bytes() for number in range(count)]
    answer = serve(images=tf.constant(contents))
    answers = {
        "probabilities": answer["probabilities"].numpy().tolist(),
        "class_names": [name.decode() for name in answer["class_names"].numpy()],
    }
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__" and sys.stdin.readline():
    main(sys.argv[1], Path(sys.argv[2]))
