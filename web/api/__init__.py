"""The interface for programs in the service's own messages: JSON, the stream, tables, health. Knows no HTML."""
