"""Where browsers run."""
