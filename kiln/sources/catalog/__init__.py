"""Catalogs: kiln.yml and image.yml."""
