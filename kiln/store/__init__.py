"""Content on disk by digest: blobs, layers, tables of contents, snapshots, cache records, garbage collection."""
