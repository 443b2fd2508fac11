"""The conformance suite: the same builds by Kiln and by BuildKit, compared."""
