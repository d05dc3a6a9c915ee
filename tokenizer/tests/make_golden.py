"""Writes the golden files of this room. Run it again when a case is added:

    python tokenizer/tests/make_golden.py

It needs the packages jinja2, tokenizers and sentencepiece; their versions are written next to the
files. The C++ tests need only the files.
"""

import importlib.metadata
import json
from pathlib import Path

import golden_templates
import golden_tokenizers


def main() -> None:
    here = Path(__file__).parent
    folder = here / "golden"
    folder.mkdir(exist_ok=True)
    golden_templates.write(folder, here / "templates")
    golden_tokenizers.write(folder)
    versions = {name: importlib.metadata.version(name)
                for name in ("jinja2", "tokenizers", "sentencepiece")}
    (folder / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
