"""The same predictions in the messages of the Open Inference Protocol. Knows nothing of the service's own messages."""
