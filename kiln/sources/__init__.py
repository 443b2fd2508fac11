"""What people write or hand over -> targets."""
