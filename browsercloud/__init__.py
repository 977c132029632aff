"""Isolated Chromium sessions for agents, asyncio scripts and notebooks."""
