"""What a reader looks at."""
