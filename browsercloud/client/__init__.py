"""The SDK: one file per noun."""
