"""The process: sockets, deadlines, draining, workers. Knows nothing of pages and models."""
