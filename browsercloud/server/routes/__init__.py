"""The whole route table."""
