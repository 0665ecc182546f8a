"""Install other makers' MCP clients, pinned, outside of the repository.

`python tests/clients/install.py` installs the libraries and the small programs; with `--all` also the
programs of several hundred megabytes and FastMCP, which gets a Python environment of its own.

What is needed: npm on the PATH (any version of Node that npm runs on). Some clients want a newer Node than
many systems have; where the system's is too old, one comes from npm as a package like the others.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

__all__ = ["Clients", "Programs", "find", "find_programs", "folder", "install", "install_programs"]

NODE = "22.23.3"
OLDEST_NODE = (22, 19)
CLIENTS = {
    "@modelcontextprotocol/inspector": "2.12.0",
    "@modelcontextprotocol/sdk": "1.32.2",
    "@modelcontextprotocol/client": "2.4.0",
    "mcporter": "0.9.0",  # the newest that does not want Node 24
}
CLAUDE = "2.1.330"
OPENCODE = "1.18.33"
GEMINI = "0.61.0"
PLAYWRIGHT = "1.65.1"
FASTMCP = "4.1.2"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Clients:
    """Where the libraries and the small programs are.

    Attributes:
        node: A Node that is new enough for all of them.
        modules: The folder from which packages resolve, like `@modelcontextprotocol/sdk`.
        inspector: The Inspector's script, for `node`.
        mcporter: The script of mcporter, for `node`.
    """

    node: str
    modules: Path
    inspector: Path
    mcporter: Path


@dataclass(frozen=True)
class Programs:
    """Where the large programs are.

    Attributes:
        modules: The folder from which `playwright-core` resolves.
        claude: Executable of Claude Code.
        gemini: The script of the Gemini CLI, for Node.
        opencode: Executable of opencode.
        fastmcp: A Python that can import FastMCP.
        browser: A Chromium of the system's.
    """

    modules: Path
    claude: Path
    gemini: Path
    opencode: Path
    fastmcp: Path
    browser: str


def folder() -> Path:
    """Where they are installed: MCP_TASKS_NODE_DIR, or a folder in the user's cache."""
    chosen = os.environ.get("MCP_TASKS_NODE_DIR")
    if chosen:
        return Path(chosen).absolute()
    return platformdirs.user_cache_path("mcp-tasks", appauthor=False) / "node-clients"


def find(where: Path) -> Clients | None:
    """The clients in a folder, or None where one of them is missing or of another version."""
    node = _new_enough(shutil.which("node")) or _new_enough(str(_node_of_npm(where)))
    if node is None or not _are_there(where, CLIENTS):
        return None
    inspector = _script(where, "@modelcontextprotocol/inspector", "mcp-inspector")
    return Clients(node, where, inspector, _script(where, "mcporter", "mcporter"))


def find_programs(where: Path) -> Programs | None:
    """The large programs below a folder, or None where one of them is missing or of another version."""
    place = where / "programs"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    fastmcp = place / "fastmcp" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    known = any((place / "fastmcp").glob(f"**/site-packages/fastmcp-{FASTMCP}.dist-info"))
    if browser is None or not known or not _are_there(place, _large_packages()):
        return None
    suffix = ".exe" if os.name == "nt" else ""
    modules = place / "node_modules"
    return Programs(
        modules=place,
        claude=modules / _claude_package() / f"claude{suffix}",
        gemini=_script(place, "@google/gemini-cli", "gemini"),
        opencode=modules / _opencode_package() / "bin" / f"opencode{suffix}",
        fastmcp=fastmcp,
        browser=browser,
    )


def install(where: Path) -> Clients:
    """Install the libraries and the small programs that are missing.

    Raises:
        RuntimeError: That cannot be done.
    """
    found = find(where)
    if found:
        return found
    packages = dict(CLIENTS)
    if _new_enough(shutil.which("node")) is None:
        packages[_node_package()] = NODE
    _npm(where, packages)
    found = find(where)
    if found is None:
        raise RuntimeError(f"npm has installed {', '.join(packages)}, and something is missing in {where}")
    return found


def install_programs(where: Path) -> Programs:
    """Install the large programs that are missing.

    Raises:
        RuntimeError: That cannot be done.
    """
    found = find_programs(where)
    if found:
        return found
    if not any(map(shutil.which, BROWSERS)):
        raise RuntimeError(f"none of {', '.join(BROWSERS)} is on the PATH (Debian's package: chromium)")
    place = where / "programs"
    _npm(place, _large_packages())
    environment = place / "fastmcp"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = environment / ("Scripts/pip.exe" if os.name == "nt" else "bin/pip")
    subprocess.run([str(pip), "install", "--quiet", f"fastmcp=={FASTMCP}"], check=True)
    found = find_programs(where)
    if found is None:
        raise RuntimeError(f"npm and pip have installed what they were asked to; some is missing in {place}")
    return found


def _npm(where: Path, packages: Mapping[str, str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError("npm is not on the PATH; it comes with Node (https://nodejs.org)")
    where.mkdir(parents=True, exist_ok=True)
    # npm takes the nearest folder above that has a package.json, unless there is one right here.
    (where / "package.json").write_text(json.dumps({"private": True, "dependencies": dict(packages)}))
    # Install scripts are not run: the clients work without, and nothing of them is asked to.
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    subprocess.run([npm, "install", *options], cwd=where, check=True)


def _large_packages() -> dict[str, str]:
    # Of Claude Code and opencode the package that has the executable for this system: the ones that are
    # named after them bring several of these, and a script that chooses one.
    return {
        _claude_package(): CLAUDE,
        _opencode_package(): OPENCODE,
        "@google/gemini-cli": GEMINI,
        "playwright-core": PLAYWRIGHT,
    }


def _claude_package() -> str:
    return f"@anthropic-ai/claude-code-{sys.platform}-{_machine()}"


def _opencode_package() -> str:
    system = {"win32": "windows"}.get(sys.platform, sys.platform)
    # The baseline is for processors of any age.
    return f"opencode-{system}-{_machine()}{'-baseline' if _machine() == 'x64' else ''}"


def _node_package() -> str:
    system = {"win32": "win"}.get(sys.platform, sys.platform)
    return f"node-{system}-{_machine()}"


def _machine() -> str:
    return "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x64"


def _node_of_npm(where: Path) -> Path:
    return where / "node_modules" / _node_package() / "bin" / "node"


def _script(where: Path, package: str, program: str) -> Path:
    place = where / "node_modules" / package
    script: str = json.loads((place / "package.json").read_text())["bin"][program]
    return (place / script).resolve()


def _new_enough(node: str | None) -> str | None:
    if node is None or not os.path.exists(node):
        return None
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    parts = printed.strip().removeprefix("v").split(".")[:2]
    if not all(part.isdigit() for part in parts) or tuple(map(int, parts)) < OLDEST_NODE:
        return None
    return node


def _are_there(where: Path, packages: Mapping[str, str]) -> bool:
    return all(_version(where, name) == version for name, version in packages.items())


def _version(where: Path, package: str) -> str | None:
    try:
        return str(json.loads((where / "node_modules" / package / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return None


def _main(arguments: Iterable[str]) -> None:
    install(folder())
    if "--all" in arguments:
        install_programs(folder())


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except (RuntimeError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"not installed: {error}") from None
