"""The edges: HTTP over aiohttp."""
