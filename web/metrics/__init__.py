"""Metrics: requests, predictions, durations, and the drift of the inputs. Knows no HTTP."""
