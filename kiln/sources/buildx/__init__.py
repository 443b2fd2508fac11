"""`docker buildx bake` files and their words."""
