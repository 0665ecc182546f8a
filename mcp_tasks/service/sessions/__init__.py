"""The use cases of sessions: what is known of them, their workspace, who is attached, their end."""
