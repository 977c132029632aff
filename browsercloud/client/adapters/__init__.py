"""Client code for one automation library each."""
