"""The use cases of journals, and the entries that are made by themselves."""
