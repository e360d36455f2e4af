"""One module a subcommand: `add_parser` says what it takes, `run` does it. What takes long to load is imported in `run`."""
