"""Compose files: the services that are built."""
