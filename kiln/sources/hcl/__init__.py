"""HCL2, the language of bake files: read and evaluated."""
