"""Checks the compile commands: what a room's files can include is what the table of rooms allows.

Headers are reached through folders of links below BUILD/include. A room's own sources (its tests
too) may name such a folder if all its links lead into the room itself or into rooms it may use, and
may name no folder of the source tree.
"""

import argparse
import json
import pathlib
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


def rooms_behind(folder, root):
    """The rooms that the links below a folder lead to."""
    for path in folder.rglob("*"):
        if path.is_symlink() and path.resolve().is_relative_to(root):
            yield path.resolve().relative_to(root).parts[0]


def findings_of(entry, options):
    """What is wrong with one compile command; None if it is not a room's."""
    source = pathlib.Path(entry["file"])
    room = source.relative_to(options.root).parts[0] if source.is_relative_to(options.root) else ""
    if room not in options.rooms:
        return None
    findings = []
    for folder in map(pathlib.Path, include_folders(entry["command"])):
        if folder.is_relative_to(options.build):
            for reached in set(rooms_behind(folder, options.root)) - options.rooms[room] - {room}:
                findings.append(f"{source}: can include from '{reached}', which '{room}' may not use")
        elif folder.is_relative_to(options.root):
            findings.append(f"{source}: can include from {folder} without going through a room")
    return findings


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rooms", type=table, required=True)
    options = parser.parse_args()
    commands = json.loads((options.build / "compile_commands.json").read_text())
    looked_at = [found for entry in commands if (found := findings_of(entry, options)) is not None]
    findings = sorted({line for found in looked_at for line in found})
    print("\n".join(findings) or f"{len(looked_at)} compile commands, none reaches too far")
    return 1 if findings or not looked_at else 0


if __name__ == "__main__":
    sys.exit(main())
