"""What is read from disk, and what is written to it."""
