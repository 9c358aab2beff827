"""The interface for programs in the service's own messages: JSON, the stream, health. Knows no HTML."""
