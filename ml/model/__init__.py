"""A model that answers: its features, its trees, the evaluators, its file. Knows nothing of how it was trained."""
