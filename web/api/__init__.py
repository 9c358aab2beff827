"""What programs send and get in the service's own messages: JSON, the stream, tables, health. Knows no HTML."""
