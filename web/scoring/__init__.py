"""The route /score: a file comes in as the body of a request or over a websocket, and its table goes out with answers.

Knows no HTML.
"""
