"""Random changes of training images: numbers sampled apart from being applied."""
