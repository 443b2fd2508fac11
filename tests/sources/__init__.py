"""Tests of kiln.sources."""
