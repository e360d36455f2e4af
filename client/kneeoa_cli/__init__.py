"""The `kneeoa` command."""
