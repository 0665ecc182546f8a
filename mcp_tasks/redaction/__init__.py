"""Taking secrets out of what is recorded, listed, logged and told.

A best effort by form, by name and by what the caller says: it errs on the side of taking out, and cannot
know a secret that looks like any other word. Every step is linear in the length of the text, whatever
the text. Wherever `values` is asked for, it takes what `secret_values` has found in an environment.
"""

from __future__ import annotations

from mcp_tasks.redaction.names import is_secret_name
from mcp_tasks.redaction.texts import REDACTED, redact_command, redact_text
from mcp_tasks.redaction.values import redact_arguments, redact_value, secret_values, values_of_arguments

__all__ = [
    "REDACTED",
    "is_secret_name",
    "redact_arguments",
    "redact_command",
    "redact_text",
    "redact_value",
    "secret_values",
    "values_of_arguments",
]
