"""Models are made here: fitted or exported, measured, written, kept. The only room that imports scikit-learn."""
