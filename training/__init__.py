"""Training code: never shipped in an archive."""
