"""What kind of thing a package is, and so which template makes an image of it."""
