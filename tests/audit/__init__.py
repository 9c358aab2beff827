"""Checks of the page by programs that are no Python: Lighthouse and the Nu HTML checker."""
