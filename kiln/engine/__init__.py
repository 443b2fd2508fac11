"""Instructions -> image: keys, steps, sandbox, executor."""
