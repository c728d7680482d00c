"""What runs, in which order: Prefect flows, and the command."""

import os

# oneDNN's kernels, which TensorFlow leaves off on CPUs without AVX-512: on two AVX2 cores the frozen part of EfficientNet-Lite0
# takes a fifth less time with them (docs/decisions/0013-the-freeze-line.md). Read when TensorFlow is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
