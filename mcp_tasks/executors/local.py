"""Runs commands on this machine: the server's side of launcher, supervisor and run folder.

A run folder holds, beside the output (see `capture`):

- The folder itself is locked (flock(2)) from before the claim until the supervisor has left. Free,
  without an exit record, means that nobody can know the end any more. No pid is ever asked.
- `alive`: a FIFO whose only writer is the supervisor, until the exit record is on disk. Its end of
  file wakes whoever waits, in any process.
- `control`, `input`: FIFOs that the supervisor reads; without a reader they cannot be opened (ENXIO).
- `started`: which processes these are. `exit.json`: the exit record. `launch`: what a pending run
  needs to be started, gone when it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mcp_tasks.errors import InvalidArgument, LimitReached, NotSupported, StoreBusy, StoreUnavailable
from mcp_tasks.executors import run_folder, survivors
from mcp_tasks.executors.launch_file import LaunchFile
from mcp_tasks.executors.launch_format import to_wire
from mcp_tasks.executors.link import LauncherLink
from mcp_tasks.executors.reservation import LocalReservation
from mcp_tasks.executors.run_folder import READ, is_not_there, unavailable
from mcp_tasks.executors.slots import Slots
from mcp_tasks.ports import Launch, Observation, Sealer

__all__ = ["LocalExecutor"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_PIECE = 65536
# What a launcher needs to end the tree of a supervisor that was killed, with room to spare.
_ORPHANS_S = 1.0
_ORPHANS_PAUSE_S = 0.05


class LocalExecutor:
    """Implements `ports.Executor` with one launcher for this process.

    Args:
        interpreter: Command line of a Python without site packages, for the launcher.
        sealer: Seals what is parked; None where that is not wanted.
    """

    def __init__(
        self, interpreter: tuple[str, ...] = (sys.executable, "-I", "-S"), *, sealer: Sealer | None = None
    ) -> None:
        self._link = LauncherLink(interpreter)
        self._launch_file = LaunchFile(sealer)
        self._slots = Slots()

    # -- starting ----------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Start the launcher now, so that the first command does not wait for it."""
        self._link.warm_up()

    def park(self, folder: Path, launch: Launch) -> None:
        """See `ports.Executor`. Raises StoreUnavailable, InvalidArgument."""
        self.park_all([(folder, launch)])

    def park_all(self, launches: Sequence[tuple[Path, Launch]]) -> None:
        """See `ports.Executor`. Raises StoreUnavailable, InvalidArgument."""
        for folder, launch in launches:
            to_wire(launch, folder)  # what could never be launched is not kept
        try:
            for folder, launch in launches:
                with open(os.open(folder / "launch", _CREATE, 0o600), "wb") as target:
                    target.write(self._launch_file.written(launch))
            # All are written before the first is waited for, so that the disk takes them together.
            for folder, _ in launches:
                _fsync(folder / "launch", os.O_RDONLY)
                _fsync(folder)
        except OSError as error:
            raise unavailable(error) from error

    def parked(self, folder: Path) -> Launch:
        """See `ports.Executor`."""
        try:
            with open(os.open(folder / "launch", READ), "rb") as source:
                return self._launch_file.read(source.read())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable("what the pending task was to run cannot be read any more") from error

    def reseal(self, folder: Path) -> bool:
        """See `ports.Executor`."""
        path = folder / "launch"
        try:
            with open(os.open(path, READ), "rb") as source:
                content = source.read()
        except OSError as error:
            if is_not_there(error):
                return False
            raise unavailable(error) from error
        try:
            renewed = self._launch_file.renewed(content)
            if renewed is None:
                return False
            temporary = folder / "launch.tmp"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            with open(os.open(temporary, _CREATE, 0o600), "wb") as target:
                target.write(renewed)
                target.flush()
                os.fsync(target.fileno())
            if not os.path.lexists(path):
                os.unlink(temporary)  # cancelled in this moment
                return False
            os.replace(temporary, path)
            _fsync(folder)
        except OSError as error:
            raise unavailable(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable("what the pending task was to run cannot be read any more") from error
        return True

    def is_unstarted(self, folder: Path) -> bool:
        """See `ports.Executor`."""
        return os.path.lexists(folder / "launch")

    def reserve(self, folder: Path, launch: Launch, slots: Path, limit: int) -> LocalReservation | None:
        """See `ports.Executor`. The folder must exist. Raises SpawnFailed, StoreUnavailable, StoreBusy."""
        held: list[int] = []
        try:
            slot = self._slots.take(slots, limit)
            if slot is None:
                return None
            held.append(slot)
            lock = os.open(folder, READ | os.O_DIRECTORY)
            held.insert(0, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreBusy("another server holds the run at this moment", "try again") from None
            message = to_wire(launch, folder)
            passed, held = held, []
            return LocalReservation(self._link, message, passed)
        except OSError as error:
            raise unavailable(error) from error
        finally:
            for descriptor in held:
                os.close(descriptor)

    # -- observing ---------------------------------------------------------------------------------

    def has_place(self, slots: Path, limit: int) -> bool:
        """See `ports.Executor`."""
        try:
            slot = self._slots.take(slots, limit)
        except OSError as error:
            raise unavailable(error) from error
        if slot is None:
            return False
        os.close(slot)
        return True

    def observe(self, folder: Path) -> Observation:
        """See `ports.Executor`. Raises StoreUnavailable where nobody can tell now."""
        return run_folder.observe(folder)

    def watch(self, folder: Path) -> int | None:
        """See `ports.Executor`. Raises StoreUnavailable."""
        return run_folder.watch(folder)

    def background(self, folder: Path) -> list[str]:
        """See `ports.Executor`."""
        record = run_folder.told(folder)
        supervisor = record.get("supervisor")
        if not isinstance(supervisor, int):
            return []
        if self.lingers(folder):
            return survivors.below(supervisor)
        # The supervisor was killed. Its launcher, where that lives, is about to end what it left.
        deadline = time.monotonic() + _ORPHANS_S
        while (left := survivors.marked(folder.name.partition(".")[0])) and time.monotonic() < deadline:
            time.sleep(_ORPHANS_PAUSE_S)
        return left

    def end_survivors(self, folder: Path) -> list[str]:
        """See `ports.Executor`."""
        return survivors.end(folder.name.partition(".")[0], _ORPHANS_S)

    def survived(self) -> frozenset[str]:
        """See `ports.Executor`."""
        return survivors.marks()

    def lingers(self, folder: Path) -> bool:
        """See `ports.Executor`."""
        return self._tell(folder, "")

    # -- asking ------------------------------------------------------------------------------------

    def cancel(self, folder: Path, grace_ms: int, signal: int) -> bool:
        """See `ports.Executor`."""
        return self._tell(folder, f"1 cancel {grace_ms} {signal}\n")

    def signal(self, folder: Path, signal: int) -> bool:
        """See `ports.Executor`."""
        return self._tell(folder, f"1 signal {signal}\n")

    def _tell(self, folder: Path, request: str) -> bool:
        try:
            control = os.open(folder / "control", _WRITE)
        except OSError as error:
            if is_not_there(error):
                return False
            raise unavailable(error) from error
        try:
            # At most PIPE_BUF bytes, so requests of several servers never mix (pipe(7)).
            if request:
                os.write(control, request.encode())
        except BlockingIOError as error:
            raise LimitReached("the task's supervisor does not answer", "try again") from error
        except BrokenPipeError:
            # It left between the two steps.
            return False
        finally:
            os.close(control)
        return True

    def write_input(self, folder: Path, data: bytes, timeout_ms: int) -> int:
        """See `ports.Executor`."""
        taken = 0
        deadline = time.monotonic() + timeout_ms / 1000
        target = _open_input(folder)
        room = select.poll()
        room.register(target, select.POLLOUT)
        try:
            # One writer at a time, so that long texts of two callers do not mix.
            while not _try_lock(target):
                if time.monotonic() >= deadline:
                    return taken
                time.sleep(0.005)
            while taken < len(data):
                try:
                    taken += os.write(target, data[taken : taken + _PIECE])
                except BlockingIOError:
                    left = deadline - time.monotonic()
                    if left <= 0 or not room.poll(left * 1000):
                        break
        except BrokenPipeError as error:
            raise InvalidArgument(
                "the command has closed its input", "read its output with poll_task"
            ) from error
        finally:
            os.close(target)
        return taken

    def close_input(self, folder: Path) -> None:
        """See `ports.Executor`."""
        os.close(_open_input(folder))
        self._tell(folder, "1 eof\n")

    # -- leaving -----------------------------------------------------------------------------------

    def tidy(self, folder: Path) -> None:
        """See `ports.Executor`."""
        for name in (
            "alive",
            "control",
            "input",
            "started",
            "started.tmp",
            "launch",
            "launch.tmp",
            "exit.tmp",
        ):
            with contextlib.suppress(OSError):
                os.unlink(folder / name)

    def close(self) -> None:
        """See `ports.Executor`."""
        self._link.close()


def _open_input(folder: Path) -> int:
    try:
        return os.open(folder / "input", _WRITE)
    except FileNotFoundError:
        raise NotSupported(
            "the task is not interactive, so it takes no text", "start it with interactive: true"
        ) from None
    except OSError as error:
        if not is_not_there(error):
            raise unavailable(error) from error
        raise InvalidArgument(
            "the command's input has been closed", "read its output with poll_task"
        ) from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fsync(path: Path, flags: int = os.O_DIRECTORY) -> None:
    descriptor = os.open(path, READ | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
