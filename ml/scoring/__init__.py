"""Tables and a model's answers to them: cells are read as rows, answered, and written with the new columns.

Knows no command and no HTTP.
"""
