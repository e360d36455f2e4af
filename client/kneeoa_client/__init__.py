"""The `kneeoa` command: asks a running server for grades."""
