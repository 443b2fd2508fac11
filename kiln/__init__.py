"""Kiln makes images: OCI container images from Dockerfiles and other sources, without a daemon."""

__version__ = "0.1.0"
