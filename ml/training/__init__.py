"""Models are made here: fitted or exported, measured, written, kept. The only package that imports scikit-learn."""
