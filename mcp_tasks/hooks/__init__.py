"""Completion hooks: what is told of a task by a command, a webhook or the desktop, at least once.

What is to be told lies in an outbox, durably, before the task is registered. Whichever server lives tells
it, or the steward; a lock for each task sees to it that only one does at a time. Whoever is killed between
telling and noting that it is told tells it again, under the same id.
"""

from __future__ import annotations

from mcp_tasks.hooks.looking import Looking
from mcp_tasks.hooks.memory_outbox import MemoryOutbox
from mcp_tasks.hooks.outbox import FileOutbox, Outbox
from mcp_tasks.hooks.signing_secret import SigningSecret
from mcp_tasks.hooks.surroundings import Surroundings
from mcp_tasks.hooks.task_hooks import TaskHooks

__all__ = ["FileOutbox", "Looking", "MemoryOutbox", "Outbox", "SigningSecret", "Surroundings", "TaskHooks"]
