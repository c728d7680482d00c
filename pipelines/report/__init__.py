"""What there is to tell of a model."""
