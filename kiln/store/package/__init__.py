"""Packages: what people have compiled (war, jar, tar, zip, folder, ELF) read as a tree of files, hostile ones refused."""
