"""SQLite databases as files of a state directory: what the SQLite store and the journal share."""
