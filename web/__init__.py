"""Serve one model live: a page, a fragment, JSON and a websocket. Knows no scikit-learn."""
