"""Run as a script in a process of its own: asks a SavedModel about stored files, with nothing imported but TensorFlow.

Begins when standard input names a SavedModel and a folder, as a JSON list, and leaves when it names none. The folder holds
files `0`, `1`, ...; their answers go to `answers.json` there.
"""

import gc
import json
import sys
from pathlib import Path

gc.disable()  # a fifth of the time of the import; this process ends before it would matter

import tensorflow as tf  # noqa: E402


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


if __name__ == "__main__" and (line := sys.stdin.readline()):
    named = json.loads(line)
    main(named[0], Path(named[1]))
