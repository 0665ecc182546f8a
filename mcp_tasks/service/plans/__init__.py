"""The use cases of plans."""
