"""What the story in `kiln.bake` is made of: outputs, images by name, the shared cache, publishing."""
