"""The bundled client: a server elsewhere, used as if it were here."""
