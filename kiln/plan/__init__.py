"""Targets, the graph of what they need, and the decisions about them."""
