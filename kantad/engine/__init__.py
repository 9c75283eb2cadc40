"""The engine: asyncio; the one writer, group commit, deduplication. No HTTP."""
