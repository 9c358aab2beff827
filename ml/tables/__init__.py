"""Tables and the numbers in them: text becomes named columns. Knows nothing of models."""
