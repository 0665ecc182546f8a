"""How files, folders and locks of a state directory come and go: what all file-keeping adapters share."""
