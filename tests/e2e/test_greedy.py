"""Greedy tokens of the default model over HTTP, against the NumPy reference, token for token.

The server packs the checkpoint itself; the reference reads that packed file and computes from the
contract pages. Prompts are decoded alone, eight at a time, and with prompts cut into small chunks.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.reference import packed  # before NumPy: it bounds its threads
from tests.reference.model import Model, generate

import gguf
import pytest

from tests.e2e.serving import Server, serve

MODEL = Path(os.environ["FLEXLLM_DEFAULT_GGUF"])
TOKENS = 200 if os.environ.get("FLEXLLM_LONG") else 24

QUESTIONS = [
    "What is the capital of France?",
    "Explain gravity to a child.",
    "Write a haiku about the sea.",
    "List three uses of copper.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet?",
    "What is 17 + 25?",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Name the planets of the solar system.",
    "Tell me a short story about a fox.",
    "What does a compiler do?",
    "Summarise the water cycle.",
    "Write a Python function that reverses a list.",
    "What is the difference between a virus and a bacterium?",
    "How do I learn to play the guitar?",
    "What is an FPGA? " + "Please be thorough. " * 40,
    "Hello!",
    "Describe the colour red to someone who cannot see, in one paragraph.",
    "Repeat after me: ünïcödé 日本語 🙂",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def prompts_of(server: Server) -> list[list[int]]:
    root = server.url.removesuffix("/v1")
    texts = [f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n" for q in QUESTIONS]
    rooted = Server(root, server.process, server.log)
    return [rooted.post("/tokenize", {"prompt": text})["tokens"] for text in texts]


def greedy(server: Server, prompt: Sequence[int], count: int = TOKENS) -> list[str]:
    """The generated tokens as texts, in order."""
    body = {
        "prompt": list(prompt),
        "max_tokens": count,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": 0,
    }
    answer = server.post("/completions", body)
    assert answer["usage"]["completion_tokens"] == count
    return answer["choices"][0]["logprobs"]["tokens"]


def token_texts() -> list[str]:
    """Every token of the model as the server names it: its bytes as UTF-8, where they are."""
    reader = gguf.GGUFReader(MODEL)
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet |= {chr(256 + index): byte for index, byte in enumerate(others)}
    return [
        bytes(alphabet[c] for c in piece).decode(errors="replace")
        if all(c in alphabet for c in piece)
        else piece
        for piece in pieces
    ]


@pytest.fixture(scope="module")
def answers(cache: Path) -> tuple[list[list[str]], list[list[str]], list[list[int]]]:
    """The answers of an unchunked server alone and eight at a time, and the prompts."""
    with serve(MODEL, "--prefill-chunk", "256", cache=cache) as server:
        prompts = prompts_of(server)
        alone = [greedy(server, prompt) for prompt in prompts]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda prompt: greedy(server, prompt), prompts))
    return alone, together, prompts


def test_batch_does_not_change_tokens(answers) -> None:
    alone, together, _ = answers
    assert together == alone


def test_chunks_do_not_change_tokens(answers, cache: Path) -> None:
    alone, _, prompts = answers
    with serve(MODEL, "--prefill-chunk", "7", cache=cache) as server, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda prompt: greedy(server, prompt), prompts)) == alone


def test_c_simulation_gives_the_same_tokens(answers, cache: Path) -> None:
    """Whole requests through the synthesizable source, on the card's C simulation."""
    alone, _, prompts = answers
    with serve(MODEL, "--emulated-kernels", "csim", cache=cache) as server:
        for prompt, expected in list(zip(prompts, alone))[:3]:
            assert greedy(server, prompt, 6) == expected[:6]


def test_tokens_equal_the_reference(answers, cache: Path) -> None:
    alone, _, prompts = answers
    (file,) = (cache / "packed").glob("*.safetensors")
    model = packed.load(file)
    ids = generate(Model(model.weights()), model.inputs(), prompts, TOKENS)
    texts = token_texts()
    assert alone == [[texts[token] for token in row] for row in ids]
