"""Middleware around every request: identity, limits, access, compression. Knows nothing of models and templates."""
