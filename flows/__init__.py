"""What runs, in which order. Wiring only."""
