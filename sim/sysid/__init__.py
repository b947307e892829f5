"""System identification: recorded logs, replayed by engines in batches, give parameters with intervals."""
