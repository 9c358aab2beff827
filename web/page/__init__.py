"""The pages for people: the page, its fragments, their texts in each language, the documentation.

Knows nothing of sockets.
"""
