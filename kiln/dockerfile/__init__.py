"""Dockerfile text -> instructions: parser, words, ignore files, checks. The rules are those of BuildKit's frontend."""
