"""From rows to scores: connections to workers, batches over them, and the ladder of fallbacks."""
