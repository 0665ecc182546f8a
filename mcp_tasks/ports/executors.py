"""The contract of what runs commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from mcp_tasks.models import Finished

__all__ = [
    "Ended",
    "Executor",
    "Gone",
    "Launch",
    "Observation",
    "Reservation",
    "Started",
    "Starting",
    "Supervised",
]


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a supervisor needs and no record may keep.

    Attributes:
        argv: Program and arguments, as given to execve(2).
        env: The complete environment of the command.
        stdin: Given to the command at once, then end of file. Ignored when `interactive`.
        lifeline: End the command when the process that launched it ends.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(default=b"", repr=False)
    interactive: bool = False
    timeout_ms: int | None = None
    grace_ms: int = 5000
    max_output_bytes: int = 0
    on_output_limit: str = "kill"
    min_free_bytes: int = 0
    lifeline: bool = False


@dataclass(frozen=True, slots=True)
class Starting:
    """Somebody holds the run's lock, and no supervisor has said anything yet."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """A supervisor lives and watches the command. Moments in ms, `started_mono` on CLOCK_MONOTONIC."""

    started_at: int
    started_mono: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit record is on disk. `background` counts the processes that outlived the command."""

    finished: Finished
    background: int
    output_held: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody holds the run's lock and there is no exit record. `reason` says what is known."""

    reason: str


Observation: TypeAlias = Starting | Supervised | Ended | Gone


@dataclass(frozen=True, slots=True)
class Started:
    """The command has been exec'd, or could not be (then the exit record says so)."""

    started_at: int
    pid: int | None


class Reservation(Protocol):
    """A run that is locked and prepared, and that nothing has been started for yet."""

    def go(self) -> Started:
        """Start the command. Raises SpawnFailed when it is certain that nothing ran."""
        ...

    def abandon(self) -> None:
        """Give the run up: nothing ran, nothing is left. Harmless after `go`."""
        ...


class Executor(Protocol):
    """Runs commands so that they outlive the server, and tells what became of them."""

    def park(self, folder: Path, launch: Launch) -> None:
        """Keep a launch, durably and for its owner's eyes only, until some server starts it."""
        ...

    def park_all(self, launches: Sequence[tuple[Path, Launch]]) -> None:
        """The same for several at once, which takes less time. Some may be kept when it raises."""
        ...

    def parked(self, folder: Path) -> Launch:
        """Read a parked launch. Raises StoreUnavailable where it is missing or broken."""
        ...

    def reseal(self, folder: Path) -> bool:
        """Seal a parked launch with the newest key. The caller holds the right to admit.

        Returns whether it was changed. Raises StoreUnavailable; then it is as it was.
        """
        ...

    def is_unstarted(self, folder: Path) -> bool:
        """Whether a parked launch is still there, so that its command was never started in this boot."""
        ...

    def reserve(self, folder: Path, launch: Launch, slots: Path, limit: int) -> Reservation | None:
        """Take a place among `limit` running runs and prepare the run.

        Returns None when every place is taken, and raises StoreBusy when another server holds the run.
        The place and the run's lock pass to the supervisor with `go`, and the kernel gives them back at
        its death.
        """
        ...

    def has_place(self, slots: Path, limit: int) -> bool:
        """Whether `reserve` would find a place now. Raises StoreUnavailable."""
        ...

    def observe(self, folder: Path) -> Observation:
        """What is true of a run now."""
        ...

    def warm_up(self) -> None:
        """Get ready, so that the first command does not wait."""
        ...

    def end_survivors(self, folder: Path) -> list[str]:
        """Kill what a supervisor that was killed left of its command; returns what is left even so."""
        ...

    def survived(self) -> frozenset[str]:
        """Ids of the tasks of which any process lives, be their supervisors gone. Looks at every process."""
        ...

    def lingers(self, folder: Path) -> bool:
        """Whether the run's supervisor lives and takes requests, be the command over or not."""
        ...

    def watch(self, folder: Path) -> int | None:
        """A descriptor that becomes readable when the run ends; the caller closes it.

        None when the run has no living supervisor at this moment: observe again.
        """
        ...

    def background(self, folder: Path) -> list[str]:
        """The processes that still live under the run's supervisor, as `pid name`."""
        ...

    def cancel(self, folder: Path, grace_ms: int, signal: int) -> bool:
        """Ask the supervisor to end the whole process tree; false when there is no supervisor."""
        ...

    def signal(self, folder: Path, signal: int) -> bool:
        """Send a signal to the command's process group; false when there is no supervisor."""
        ...

    def write_input(self, folder: Path, data: bytes, timeout_ms: int) -> int:
        """Write to an interactive command's stdin; returns the bytes taken within the time.

        Raises NotSupported when the run takes no input, TaskNotFinished never.
        """
        ...

    def close_input(self, folder: Path) -> None:
        """End the input of an interactive command after what has been written."""
        ...

    def tidy(self, folder: Path) -> None:
        """Remove what a finished run no longer needs (pipes, lock), never output or exit record."""
        ...

    def close(self) -> None:
        """Let go of the launcher. Running commands are not touched, unless on a lifeline."""
        ...
