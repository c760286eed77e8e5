"""What the next `up` will do, in words: read from the engine's own preview events."""
