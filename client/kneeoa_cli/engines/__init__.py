"""Engines beyond a server that `kneeoa batch` can hand an archive to."""
