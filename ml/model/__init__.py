"""A model that predicts: its features, its trees, the evaluators, its file. Knows nothing of its training."""
