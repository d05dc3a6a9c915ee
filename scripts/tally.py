"""Adds up JUnit files of ctest and pytest.

Names what failed, shows the end of each failed test's output, and ends with 'N passed, N failed'
alone on a line. Under CI=true a test that was skipped, disabled or not run counts as failed.
Status 0 when something passed and nothing failed.

    tally.py [--quiet] [--lost NAME]... FILE.xml...
        --quiet   names and the last line only
        --lost    a stage that left no results; counts as one failure
"""

import argparse
import os
import sys
import xml.etree.ElementTree as ElementTree

LINES_SHOWN = 60


def outcome(case):
    """'passed', 'failed' or 'skipped', and what the test said."""
    said = "\n".join(
        text
        for tag in ("failure", "error", "skipped", "system-out", "system-err")
        for element in case.findall(tag)
        for text in (element.get("message"), element.text)
        if text
    )
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed", said
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped", said
    return ("failed" if case.get("status") == "fail" else "passed"), said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--lost", action="append", default=[])
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    names = {"passed": [], "failed": [f"{name} (left no results)" for name in options.lost], "skipped": []}
    for path in options.files:
        for case in ElementTree.parse(path).getroot().iter("testcase"):
            kind, said = outcome(case)
            name = case.get("name")
            if case.get("classname") not in (None, name):
                name = f"{case.get('classname')}::{name}"
            if kind == "skipped" and os.environ.get("CI") == "true":
                kind, said = "failed", "skipped, which counts as failed under CI=true\n" + said
            names[kind].append(name)
            if kind == "failed" and not options.quiet:
                print(f"\n===== FAILED {name} ({os.path.basename(path)})")
                print("\n".join(said.splitlines()[-LINES_SHOWN:]))
    for kind in ("skipped", "failed"):
        for name in names[kind]:
            print(f"{kind}: {name}")
    if names["skipped"]:
        print(f"{len(names['skipped'])} skipped")
    print(f"{len(names['passed'])} passed, {len(names['failed'])} failed")
    return 0 if names["passed"] and not names["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
