"""The two phases, and what watches them."""
