"""Values: pure functions and data; nothing here does I/O or imports another floor."""
