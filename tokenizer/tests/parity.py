"""Compare our ids with those of the `tokenizers` package on whole text files.

    parity.py ENCODE_FILE MODEL.gguf [TEXT...]

ENCODE_FILE is the built tokenizer_encode_file. The reference tokenizer is made from the tokens and
merges in the GGUF. The difficult texts of golden/texts.json, and every file that is named, are
encoded as a whole and line by line; all ids must be equal.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers


def reference(path: str) -> Tokenizer:
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    name = fields["tokenizer.ggml.pre"].contents()
    if name != "smollm":
        raise SystemExit(f"parity.py knows the pre-tokenizer smollm, not {name}")
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return tokenizer


def ours(program: str, model: str, text: str, *mode: str) -> np.ndarray:
    done = subprocess.run([program, model, text, *mode], capture_output=True, check=True)
    print("  ours:", done.stderr.decode().strip())
    return np.frombuffer(done.stdout, dtype="<u4")


def compare(name: str, got: np.ndarray, expected: np.ndarray) -> bool:
    if np.array_equal(got, expected):
        print(f"  {name}: {len(got)} ids, all equal")
        return True
    shared = min(len(got), len(expected))
    differing = np.flatnonzero(got[:shared] != expected[:shared])
    first = int(differing[0]) if len(differing) else shared
    print(f"  {name}: {len(got)} ids, {len(expected)} expected, first difference at {first}:")
    print("    got     ", got[first : first + 8], "\n    expected", expected[first : first + 8])
    return False


def difficult_texts() -> str:
    golden = json.loads((Path(__file__).parent / "golden" / "texts.json").read_text())
    repeated = [case["unit"] * case["count"] + case["end"] for case in golden["repeated"]]
    return "\n".join(golden["plain"] + repeated + golden["added"])


def main() -> int:
    program, model, *texts = sys.argv[1:]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".txt") as difficult:
        difficult.write(difficult_texts())
        difficult.flush()
        return compare_files(program, model, [difficult.name, *texts])


def compare_files(program: str, model: str, texts: list[str]) -> int:
    tokenizer = reference(model)
    equal = True
    for path in texts:
        print(path)
        text = Path(path).read_bytes().decode("utf-8")
        start = time.perf_counter()
        whole = np.array(tokenizer.encode(text).ids, dtype="<u4")
        seconds = time.perf_counter() - start
        print(f"  tokenizers: {len(text.encode()) / 1e6 / seconds:.1f} MB/s")
        lines = tokenizer.encode_batch(re.findall(r"[^\n]*\n|[^\n]+", text))
        by_line = np.concatenate([np.array(line.ids, dtype="<u4") for line in lines])
        equal &= compare("as a whole", ours(program, model, path), whole)
        equal &= compare("line by line", ours(program, model, path, "lines"), by_line)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
