"""Each module prints the figures that the README and the notes claim, peers measured in the same run."""
