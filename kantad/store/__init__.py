"""The store: blocking files; the log, recovery, reading back."""
