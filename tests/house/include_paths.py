"""Checks the compile commands: what a room's files can include is what the table of rooms allows.

Each room's headers are reached through BUILD/include/ROOM; a room's own sources (its tests too) may
name that folder for itself and for the rooms it may use, and no folder of the source tree.
"""

import argparse
import json
import pathlib
import re
import shlex
import sys


def table(text):
    """'server:host,formats tokenizer:' -> {'server': {'host', 'formats'}, 'tokenizer': set()}"""
    return {
        room: set(used.split(",")) - {""} for room, used in (entry.split(":") for entry in text.split())
    }


def include_folders(command):
    words = shlex.split(command)
    for word, following in zip(words, words[1:] + [""]):
        if word in ("-I", "-isystem", "-iquote"):
            yield following
        elif word.startswith("-I"):
            yield word[2:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rooms", type=table, required=True)
    options = parser.parse_args()
    findings, seen = [], 0
    for entry in json.loads((options.build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["file"])
        room = source.relative_to(options.root).parts[0] if source.is_relative_to(options.root) else ""
        if room not in options.rooms:
            continue
        seen += 1
        for folder in map(pathlib.Path, include_folders(entry["command"])):
            reached = re.match(r"include/(\w+)$", str(folder.relative_to(options.build))) if folder.is_relative_to(options.build) else None
            if reached and reached[1] not in options.rooms[room] | {room}:
                findings.append(f"{source}: can include from '{reached[1]}', which '{room}' may not use")
            elif folder.is_relative_to(options.root) and not folder.is_relative_to(options.build):
                findings.append(f"{source}: can include from {folder} without going through a room")
    print("\n".join(findings) or f"{seen} compile commands, none reaches too far")
    return 1 if findings or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
