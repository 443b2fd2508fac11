"""Nouns of the OCI image and distribution specifications; no I/O."""
