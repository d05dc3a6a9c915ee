#!/usr/bin/env python3
"""Writes a copy of an accelerator's description with some numbers changed; the file's name is its name.

    vary_accelerator.py BASE.json OUT.json kernels.prefill.parallelism.tp=8 banks.kv=HBM[12:15] ...
"""

import json
import sys
from pathlib import Path


def main() -> int:
    base, out, changes = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    config = json.loads(base.read_text())
    config["name"] = out.stem
    for change in changes:
        path, _, text = change.partition("=")
        *folders, last = path.split(".")
        place = config
        for key in folders:
            place = place[int(key) if isinstance(place, list) else key]
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(config, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
