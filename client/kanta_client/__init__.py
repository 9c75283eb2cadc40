"""A client for kantad."""
