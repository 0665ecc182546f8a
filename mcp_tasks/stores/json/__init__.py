"""The store of JSON files, and what it derives from them."""
