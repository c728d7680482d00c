"""What a model gets right, in figures and pictures."""
