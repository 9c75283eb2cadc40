"""kantad: a small durable JSON database behind HTTP."""

__version__ = "0.1.0"
