"""Fitted estimators are read here: what a library has learned becomes the arrays of `ml.model`. Knows no files."""
