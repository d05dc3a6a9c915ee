"""The tokenizer half of make_golden.py: small vocabularies trained here, and what the `tokenizers`
and `sentencepiece` packages make of difficult texts with them."""

import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

# What the vocabularies are trained on.
SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and then it doesn't; they're tired.",
    "In 2026 there were 12,345 tokens, 3.14159 of them round. I've counted: we'll see, I'd say.",
    "Straße, naïve café, Ångström, señor, Đặng, Привет мир, Γειά σου Κόσμε, שלום עולם, مرحبا بالعالم",
    "日本語の文章です。中文也有。한국어 문장. ไทย हिन्दी தமிழ்",
    "def main():\n    if x == 1:\n\t\treturn {\"key\": [1, 2, 3]}  # comment\r\n\r\n",
    "    indented    by   spaces\t\tand tabs\n\n\nnew paragraph!!! ??? ... --- === ///",
    "🙂🙃👍🏽 👩‍👩‍👧‍👦 🇫🇷🇩🇪 ❤️ ½ ² Ⅷ ①",
    "HTTPServer getURLPath snake_case_name CamelCase UPPER lower https://example.org/a?b=c&d=e#f",
]
CORPUS = SENTENCES * 3 + [sentence.lower() for sentence in SENTENCES]

TEXTS = [
    "", " ", "  ", "a", " a", "a ", "Hello, world!", "\n", "\r\n", "\r\n\r\n x", "\t\t\ta\t",
    "I'm you're he's we'll they'd I've don't", "I'M YOU'RE HE'S WE'LL THEY'D I'VE DON'T",
    "'s 'S '\u017f '\u212aelvin 're'RE 'x ''s l'l", "it’s ’s", "1 12 123 1234 12345 123456 1,234.5678",
    "a1b22c333 4four 5 6", "x²³½¼①Ⅷ٠١٢३४५", "  1", "a  1", "a   b    c", "a \n b", "a\n\n\n  b  \n",
    " \n \n ", "   \t  x", "end   ", "end\n", "end \n  ", "a\u00a0b\u00a0\u00a0c", "\u00a0", "\u2003\u3000x\u2003",
    "\u2028a\u2029b\u0085c", "\u180ea\u180e b\u200bc", "\ufeffBOM", "a\ufeff", "\u0000\u0001\u0002\u0004\x1b[0m\x7f",
    "\x1c\x1d\x1e\x1f x", "\x0b\x0c y", "e\u0301 é n\u0303 \u0301\u0301\u0301 x\u0336y\u0336",
    "Z̸̡͉a̷l̵g̴o̶", "한국어 \u1112\u1161\u11ab 각", "क्षि मिस्र हिन्दी", "ไทยไม่มีช่องว่าง",
    "שָׁלוֹם עוֹלָם", "مرحبا بالعالم ١٢٣", "日本語と中文，混在。（テスト）「」", "𠮷野家 𝒳𝟙𝟚", "👍👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇫🇷",
    "☎️✌🏿 ❤️‍🔥", "\U000f0000\U0010fffd \ue000", "\uffff\ufffe\ufdd0", "\ufffd", "�� x",
    "<|im_start|>user\n<|im_end|>", "<s> </s> <unk> [INST] <0x0A>", "a<|im_end|>b", "▁▁a▁ ▁", "##a @@b",
    "snake_case __init__ a_1", "foo(bar)[0]{x}->y::z;//c", "!!!???...", "!\n!\r\n!\n\n x", "a!\n\nb", "--\t--",
    "https://example.org/p?q=1&r=2#s", "$100 €99 £1 ¥5", "50% ±3 ×2 ÷4", "C++ C# F# .NET", "İstanbul ıI ſs ß",
    "ΑΒΓ αβγ Σς", "ǅ ǆ Ǆ", "Привет, МИР!", "nbsp\u00a0\u00a0\n", "\u202eRTL\u202c", "a\u200db a\u200cb",
    "The quick brown fox doesn't jump over 13 lazy dogs.\n\tIt's 2026; they'll see!\r\n",
]

# (unit, count, end): long texts, for algorithms that take quadratic time or deep recursion.
REPEATED = [
    ("a", 10000, ""), (" ", 10000, ""), ("ab", 5000, ""), ("\n", 3000, ""), ("1", 5000, ""), ("é", 3000, ""),
    ("👍", 1500, ""), (" a", 3000, ""), ("!", 4000, "x"), (" ", 4000, "x"), ("word word \n", 200, ""),
    ("'", 500, ""), ("\u0301", 2000, ""), ("'s", 1000, ""), (" \t", 500, "z"), ("\r", 500, ""),
    ("Aa1!", 100, "?"),
]


def byte_level(pre_tokenizer, normalizer=None, every_byte=True, size=560) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if every_byte else []
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False,
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def with_json(tokenizer: Tokenizer, change) -> Tokenizer:
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def gpt2() -> Tokenizer:
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))


def smollm() -> Tokenizer:
    """Not every byte has a token, as in SmolLM2; such bytes are dropped."""
    return byte_level(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]), every_byte=False)


def split(pattern: str):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])


def llama3() -> Tokenizer:
    """With tokens that no merge leads to: ignore_merges finds them all the same."""
    def change(data):
        data["model"]["ignore_merges"] = True
        for text in ("Ġlazy", "Ġdogs", "paragraph", "123", "ĠINST"):
            data["model"]["vocab"].setdefault(text, len(data["model"]["vocab"]))
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0],
                                                 "tokens": ["<|endoftext|>"]}}}
    return with_json(byte_level(split(LLAMA3)), change)


def qwen2() -> Tokenizer:
    return byte_level(split(QWEN2), normalizer=normalizers.NFC())


def tinyllama() -> Tokenizer:
    """Llama-2's tokenizer.json: characters, bytes for what is unknown, U+2581 for spaces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=760, limit_alphabet=120, special_tokens=special,
                                  show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)

    def change(data):
        data["pre_tokenizer"] = None
        data["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
        data["decoder"] = {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
        data["added_tokens"] = data["added_tokens"][:3]
    return with_json(tokenizer, change)


def metaspace() -> Tokenizer:
    """The newer form of the same: a Metaspace that does not split, only the first text prefixed."""
    def change(data):
        data["normalizer"] = None
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                                 "split": False}
    return with_json(tinyllama(), change)


def added() -> Tokenizer:
    """Added tokens with every flag."""
    def change(data):
        size = len(data["model"]["vocab"])
        flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
        for i, (content, extra) in enumerate([
                ("<tool>", {}), ("<tool>x", {}), ("<left>", {"lstrip": True}), ("<right>", {"rstrip": True}),
                ("word", {"single_word": True}), ("<both>", {"lstrip": True, "rstrip": True})]):
            data["added_tokens"].append({"id": size + i, "content": content, **flags, **extra})
    return with_json(gpt2(), change)


ADDED_TEXTS = ["<tool>", "a<tool>b", "<tool>x<tool>y", "a  <left>  b", "a  <right>  b", "a  <both> \n b", "<left><left> ",
               "word words sword word_ word! 日word éword", "a word b", " <right> <left> ", "<tool", "<<tool>>",
               "x<|im_end|> <both>\u00a0<|im_start|>"]


def sentencepiece_model() -> bytes:
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for sentence in CORPUS for line in sentence.splitlines()]),
        model_writer=output, model_type="bpe", vocab_size=700, byte_fallback=True,
        character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["<tool>"],
        num_threads=1, minloglevel=2)
    return output.getvalue()


def write(folder: Path) -> None:
    dump(folder / "texts.json", {
        "plain": TEXTS, "added": ADDED_TEXTS,
        "repeated": [{"unit": unit, "count": count, "end": end} for unit, count, end in REPEATED]})
    texts = TEXTS + [unit * count + end for unit, count, end in REPEATED] + ADDED_TEXTS
    for make in (gpt2, smollm, llama3, qwen2, tinyllama, metaspace, added):
        tokenizer = make()
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        decoded = [tokenizer.decode(i, skip_special_tokens=False) for i in ids]
        dump(folder / f"{make.__name__}.json", {
            "tokenizer": json.loads(tokenizer.to_str()),
            "ids": compressed(ids),
            # Only where it is not the text again.
            "decoded": {str(i): got for i, (got, text) in enumerate(zip(decoded, texts)) if got != text}})
    model = sentencepiece_model()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    (folder / "sentencepiece.model").write_bytes(model)
    size = processor.get_piece_size()
    kinds = [2 if processor.is_unknown(i) else 3 if processor.is_control(i) else
             6 if processor.is_byte(i) else 5 if processor.is_unused(i) else
             4 if processor.id_to_piece(i) == "<tool>" else 1 for i in range(size)]
    ids = [processor.encode(text) for text in texts]
    decoded = [processor.decode(i) for i in ids]
    dump(folder / "sentencepiece.json", {
        "pieces": [processor.id_to_piece(i) for i in range(size)],
        "scores": [processor.get_score(i) for i in range(size)],
        "types": kinds,
        "ids": compressed(ids),
        "decoded": {str(i): got for i, (got, text) in enumerate(zip(decoded, texts)) if got != text}})


def compressed(cases_ids: list) -> list:
    """Runs [id, count] where an id repeats, to keep the files small."""
    result = []
    for ids in cases_ids:
        runs = []
        for i in ids:
            if runs and isinstance(runs[-1], list) and runs[-1][0] == i:
                runs[-1][1] += 1
            elif runs and runs[-1] == i:
                runs[-1] = [i, 2]
            else:
                runs.append(i)
        result.append(runs)
    return result


def dump(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
