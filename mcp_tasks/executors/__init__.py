"""How commands are run: a warm launcher, one supervisor per running task, and their client."""
