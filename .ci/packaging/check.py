"""Check what the project is published with, pack the bundle, run what was packed: `python check.py FOLDER`.

The folder takes what is needed for it: the bundle's own tool from npm, the checker of registry entries and
uv from PyPI. The packed bundle is left in it as `mcp-tasks.mcpb`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
MCPB = "@anthropic-ai/mcpb@2.1.2"
CHECKERS = ("skillsaw==0.22.0", "uv==0.13.9")
BUNDLED = ("mcp_tasks", "pyproject.toml", "README.md", "LICENSE")


def main(folder: Path) -> None:
    """Do all of it. Raises CalledProcessError or AssertionError where something is not as it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    manifest = json.loads((HERE / "manifest.json").read_text())
    entry = json.loads((HERE / "server.json").read_text())
    versions = {project["version"], manifest["version"], entry["version"], entry["packages"][0]["version"]}
    assert len(versions) == 1, f"the versions differ: {sorted(versions)}"
    assert entry["packages"][0]["identifier"] == project["name"]
    tools = installed(folder)
    check_entry(folder, tools)
    bundle = pack(folder)
    anyio.run(run_bundle, bundle, manifest, tools / "uv")


def installed(folder: Path) -> Path:
    """The programs of PyPI, in an environment of their own; returns the folder they are in."""
    programs = folder / "env" / "bin"
    if not (programs / "uv").exists():
        venv.create(folder / "env", with_pip=True)
        subprocess.run([programs / "python", "-m", "pip", "install", "-q", *CHECKERS], check=True)
    return programs


def check_entry(folder: Path, programs: Path) -> None:
    """The entry for the MCP registry is right by the released schema that it names."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        shutil.copy(HERE / "server.json", place)
        lint = [programs / "skillsaw", "lint", "--strict", "--rule", "mcp-registry-server-json-valid", place]
        subprocess.run(lint, check=True)
        # That it can fail is seen each time.
        wrong = Path(place) / "server.json"
        wrong.write_text(wrong.read_text().replace('"registryType": "pypi",', ""))
        refused = subprocess.run(lint, check=False, capture_output=True, text=True)
        assert refused.returncode != 0, "a wrong entry was taken"


def pack(folder: Path) -> Path:
    """Validate the manifest and make the bundle."""
    stage, bundle = folder / "stage", folder / "mcp-tasks.mcpb"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    for name in BUNDLED:
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, stage)
    shutil.copy(HERE / "manifest.json", stage)
    mcpb = ["npm", "exec", "--yes", "--prefix", str(folder), f"--package={MCPB}", "--", "mcpb"]
    subprocess.run([*mcpb, "validate", str(stage / "manifest.json")], check=True)
    subprocess.run([*mcpb, "pack", str(stage), str(bundle)], check=True)
    return bundle


async def run_bundle(bundle: Path, manifest: dict[str, Any], uv: Path) -> None:
    """Unpack the bundle as a client does, start what its manifest says, and run a command through it."""
    with tempfile.TemporaryDirectory() as place:
        with zipfile.ZipFile(bundle) as packed:
            packed.extractall(place)
        defaults = {name: field["default"] for name, field in manifest["user_config"].items()}

        def filled(text: str) -> str:
            for name, value in (
                ("__dirname", place),
                *((f"user_config.{k}", v) for k, v in defaults.items()),
            ):
                text = text.replace(f"${{{name}}}", value)
            return text

        config = manifest["server"]["mcp_config"]
        assert config["command"] == "uv"
        parameters = StdioServerParameters(
            command=str(uv),
            args=[filled(argument) for argument in config["args"]],
            env={
                **{name: filled(value) for name, value in config["env"].items()},
                **{
                    name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_CERT_"))
                },
                "HOME": place,
                "MCP_TASKS_DIR": f"{place}/state",
            },
        )
        with anyio.fail_after(300):
            async with Client(stdio_client(parameters)) as client:
                listed = {tool.name for tool in (await client.list_tools()).tools}
                assert listed == {tool["name"] for tool in manifest["tools"]}, listed
                answer = await client.call_tool("run_command", {"command": "echo bundled", "wait_ms": 20_000})
                assert (answer.structured_content or {}).get("stdout") == "bundled\n", answer
                print("the bundle was packed, unpacked, and has run a command")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
