"""The journals of all sessions, in one database."""
