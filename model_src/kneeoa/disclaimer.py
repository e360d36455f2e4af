"""What every reply, page and command says; a file of its own, since the command line says it before it loads anything."""

DISCLAIMER = "Research software, not a medical device. Not for diagnosis or treatment decisions."
