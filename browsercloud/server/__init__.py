"""The cloud's front: HTTP and WebSocket."""
