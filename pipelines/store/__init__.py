"""What was seen and decoded, on disk."""
