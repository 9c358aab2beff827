"""Jobs: files of rows that are scored, the files that their scored copies become, and which of them are done already.

Knows no HTTP, and of models and tables only what scores a file. Ray is imported where jobs run on it.
"""
