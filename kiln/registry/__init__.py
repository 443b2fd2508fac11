"""Talking to container registries (OCI distribution-spec 1.1): pull, push, mount, referrers, credentials."""
