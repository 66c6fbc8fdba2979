"""Prints the licences of the crates that are linked into the program, each text once.

    python3 cross/licences.py aarch64-unknown-linux-gnu > third-party.txt
"""

import json
import subprocess
import sys
from pathlib import Path


def linked(metadata):
    """The packages that end up in the program: reached by normal dependencies, and no procedural macros."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        kinds = {kind for target in packages[package]["targets"] for kind in target["kind"]}
        if package in found or "proc-macro" in kinds:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    found.discard(metadata["resolve"]["root"])
    return sorted((packages[package] for package in found), key=lambda p: (p["name"], p["version"]))


def texts(package):
    """The licence files of a package."""
    folder = Path(package["manifest_path"]).parent
    names = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE")
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name.upper().startswith(names))
    return ["\n".join(line.rstrip() for line in f.read_text("utf-8", "replace").strip().splitlines()) for f in files]


def main():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", sys.argv[1]]
    packages = linked(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    users = {}
    print(f"{len(packages)} libraries are linked into the program. Each is under the licence beside its name:\n")
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"  {name}: {package['license'] or 'see its text'}")
        for text in texts(package):
            users.setdefault(text, []).append(name)
    for text, names in users.items():
        print(f"\n{'=' * 80}\n{', '.join(names)}\n{'-' * 80}\n{text}")


if __name__ == "__main__":
    main()
