"""One Prefect task per stage, and every Prefect knob."""
