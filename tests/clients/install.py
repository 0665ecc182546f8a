"""Install other makers' MCP clients, pinned, outside of the repository: `python tests/clients/install.py`.

What is needed: npm on the PATH (any version of Node that npm runs on). The Inspector wants a newer Node than
many systems have; where the system's is too old, one comes from npm as a package like the others.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

__all__ = ["Clients", "find", "folder", "install"]

NODE = "22.23.3"
OLDEST_NODE = (22, 19)
INSPECTOR = "2.12.0"
SDK = "1.32.2"


@dataclass(frozen=True)
class Clients:
    """Where the clients are.

    Attributes:
        node: A Node that is new enough for all of them.
        inspector: The Inspector's script, for `node`.
        modules: The folder from which `@modelcontextprotocol/sdk` resolves.
    """

    node: str
    inspector: Path
    modules: Path


def folder() -> Path:
    """Where they are installed: MCP_TASKS_NODE_DIR, or a folder in the user's cache."""
    chosen = os.environ.get("MCP_TASKS_NODE_DIR")
    if chosen:
        return Path(chosen).absolute()
    return platformdirs.user_cache_path("mcp-tasks", appauthor=False) / "node-clients"


def find(where: Path) -> Clients | None:
    """The clients in a folder, or None where one of them is missing or of another version."""
    node = _new_enough(shutil.which("node")) or _new_enough(str(_node_of_npm(where)))
    wanted = {"@modelcontextprotocol/inspector": INSPECTOR, "@modelcontextprotocol/sdk": SDK}
    if node is None or any(_version(where, name) != version for name, version in wanted.items()):
        return None
    package = where / "node_modules" / "@modelcontextprotocol" / "inspector"
    script = json.loads((package / "package.json").read_text())["bin"]["mcp-inspector"]
    return Clients(node, (package / script).resolve(), where)


def install(where: Path) -> Clients:
    """Install what is missing. Raises RuntimeError where that cannot be done."""
    found = find(where)
    if found:
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not on the PATH; it comes with Node (https://nodejs.org)")
    where.mkdir(parents=True, exist_ok=True)
    # npm takes the nearest folder above that has a package.json, unless there is one right here.
    (where / "package.json").write_text('{"private": true}\n')
    packages = [f"@modelcontextprotocol/inspector@{INSPECTOR}", f"@modelcontextprotocol/sdk@{SDK}"]
    if _new_enough(shutil.which("node")) is None:
        packages.insert(0, f"{_node_package()}@{NODE}")
    # Install scripts are not run: the clients work without, and nothing of them is asked to.
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    subprocess.run([npm, "install", *options, *packages], cwd=where, check=True)
    found = find(where)
    if found is None:
        raise RuntimeError(f"npm has installed {', '.join(packages)}, and something is missing in {where}")
    return found


def _node_package() -> str:
    system = {"win32": "win"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    return f"node-{system}-{'arm64' if machine in {'arm64', 'aarch64'} else 'x64'}"


def _node_of_npm(where: Path) -> Path:
    return where / "node_modules" / _node_package() / "bin" / "node"


def _new_enough(node: str | None) -> str | None:
    if node is None or not os.path.exists(node):
        return None
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    parts = printed.strip().removeprefix("v").split(".")[:2]
    if not all(part.isdigit() for part in parts) or tuple(map(int, parts)) < OLDEST_NODE:
        return None
    return node


def _version(where: Path, package: str) -> str | None:
    try:
        return str(json.loads((where / "node_modules" / package / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return None


if __name__ == "__main__":
    try:
        install(folder())
    except (RuntimeError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"not installed: {error}") from None
