"""Sessions with other libraries than the project's own: models are fitted there, and exported by `ml` as it is here."""
