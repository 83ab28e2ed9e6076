"""Pre-tokenizers of BPE tokenizers: how they split text into words, by the pre-tokenizer name in GGUF files.

The names are those of llama.cpp (src/llama-vocab.cpp). The patterns are those of the models' own tokenizers
(tokenizer.json, or tiktoken's registry), which llama.cpp approximates where its regular expressions cannot express
them.
"""

from __future__ import annotations

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+"

_GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+" + _SYMBOLS + r"|\s+(?!\S)|\s+"
# The passes `\p{N}` and GPT-2's, in one pattern.
_SINGLE_DIGITS = r"\p{N}|'(?:s|t|re|ve|m|ll|d)| ?\p{L}+" + _SYMBOLS + r"|\s+(?=\p{N})|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTION + "|" + _BEFORE + r"\p{L}+|\p{N}{1,3}" + _SYMBOLS + r"[\r\n]*" + _SPACES
_LONG_NUMBERS = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")
_JAIS2 = (
    _LLAMA3.removesuffix(r"\s+(?!\S)|\s+")
    + r"(?:\s{512}|\s{256}|\s{128}|\s{64}|\s{32}|\s{16}|\s{8}|\s{4}|\s{1,2})(?!\S)|\s"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_QWEN35 = _CONTRACTION + "|" + _BEFORE + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
_UFAKZEKA = _QWEN2.removeprefix(_CONTRACTION + "|")
_SEED_CODER = _QWEN2.replace(_SYMBOLS + r"[\r\n]*", _SYMBOLS)
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|" + _BEFORE + r"\p{L}+|\p{N}" + _SYMBOLS + r"[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_EXAONE_MOE = (
    f"{_CONTRACTION}|{_BEFORE}"
    r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}" + _SYMBOLS + r"[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)  # fmt: skip
_TEKKEN = (
    f"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*"
    r"|\p{N}" + _SYMBOLS + r"[\r\n/]*" + _SPACES
)  # fmt: skip
_CASED = f"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTION}?"
_GPT4O = _CASED + r"|\p{N}{1,3}" + _SYMBOLS + r"[\r\n/]*" + _SPACES
_KIMI_K2 = r"\p{Han}+|" + (
    _CASED.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]") + r"|\p{N}{1,3}" + _SYMBOLS + r"[\r\n]*" + _SPACES
)

LINES = r"[^\n]+|\n+"
_CJK = r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_ASCII_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
# The passes `\p{N}{1,3}`, _CJK, and _ASCII_WORD with what follows it elsewhere, in one pattern. What the first two
# match ends the parts that the third one sees, so that its matches are of one kind of characters. The last alternatives
# are what it leaves over.
_INSIDE = _CJK.removesuffix("+")
_OUTSIDE = _INSIDE.replace("[", "[^", 1)
_LEFT_OVER = r"|(?:[[^\s\p{{L}}\p{{M}}\p{{N}}\p{{P}}\p{{S}}]&&{0}](?![\p{{L}}\p{{M}}&&{0}]))+"
_DEEPSEEK3 = (
    rf"\p{{N}}{{1,3}}|[[^\p{{L}}\p{{P}}\p{{S}}]&&{_INSIDE}]?[\p{{L}}\p{{M}}&&{_INSIDE}]+|[\p{{P}}\p{{S}}&&{_INSIDE}]+"
    rf"|[!-/:-@\[-`{{-~][A-Za-z]+"
    rf"|[[^\r\n\p{{L}}\p{{P}}\p{{S}}\p{{N}}]&&{_OUTSIDE}]?[\p{{L}}\p{{M}}&&{_OUTSIDE}]+"
    rf"| ?[\p{{P}}\p{{S}}&&{_OUTSIDE}]+[\r\n]*|\s*[\r\n]+|\s+(?=\p{{N}}|{_CJK})|\s+(?!\S)|\s+"
    + _LEFT_OVER.format(_INSIDE)
    + _LEFT_OVER.format(_OUTSIDE)
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")
# Letters that have case, in the version of Unicode that the model knew.
_CASED_LETTERS = (
    r"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    r"\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    r"\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    r"\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    r"\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    r"\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    r"\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    r"\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    r"\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    r"\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+\Z",
    r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}+",
)
_SPARK = (r"\p{N}{1,3}", _CJK, _ASCII_WORD + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}")
_YOUTU = (
    rf"[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|{_CJK}",
    _CASED + r"|\p{N}" + _SYMBOLS + r"[\r\n/]*" + _SPACES,
)
# Digits in groups of three, from the end. A lookahead at each digit would take time quadratic in their number.
_GROUPED = (r"\p{N}+", r"\A\p{N}{1,2}(?=(?:\p{N}{3})*\Z)|\p{N}{3}")
_AFMOE = (
    *_GROUPED,
    r"[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
    _ASCII_WORD + r"[\r\n]*" + _SPACES,
)
_WORDS = r" ?[^(\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_CHAMELEON = (
    "<sentinel:[0-9]+>",
    "IMGIMG[A-I]{1,4}Z",
    r"[\t\n]|    |  ",
    r"\p{N}",
    r"[\p{P}!-/:-@\[-`{-~]",
    _GPT2,
)

_SINGLE = {
    _GPT2: "gpt-2 phi-2 mpt olmo jais gigachat a.x-4.0 mellum exaone4 trillion granite-docling jina-es jina-de"
    " jina-v2-es jina-v2-de modern-bert jina-v1-en jina-v2-code roberta-bpe",
    _SINGLE_DIGITS: "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
    _LLAMA3: "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe"
    " chatglm-bpe glm4 glm5",
    _JAIS2: "jais-2",
    _QWEN2: "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    _QWEN35: "qwen35",
    _UFAKZEKA: "ufakzeka",
    _SEED_CODER: "seed-coder",
    _BAILING: "bailingmoe bailingmoe2 llada-moe",
    _EXAONE_MOE: "exaone-moe",
    _TEKKEN: "tekken",
    _GPT4O: "gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m",
    _KIMI_K2: "kimi-k2",
    _DEEPSEEK3: "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
}
_SEVERAL = {
    (r"[\p{P}$+<=>\^~|]+", _GPT2, r"\p{N}+", "[0-9]{3}"): "default",
    (r"[\p{P}$+<=>\^~|`]+", _GPT2, "[0-9]{3}"): "falcon",
    _DEEPSEEK: "deepseek-llm",
    _DEEPSEEK_CODER: "deepseek-coder",
    _SPARK: "spark2_5",
    _YOUTU: "youtu",
    _AFMOE: "afmoe",
    (*_GROUPED, _GPT4O): "tiny_aya cohere2moe",
    _GROUPED: "superbpe",
    (r"\p{N}{1,3}", _LONG_NUMBERS): "minicpm5",
    (LINES, _QWEN2): "laguna",
    (_WORDS, r"\p{N}"): "viking",
    (_WORDS,): "bloom poro-chat gpt3-finnish",
    _CHAMELEON: "chameleon",
}

PATTERNS = {name: pattern for pattern, names in _SINGLE.items() for name in names.split()}
"""Pre-tokenizers with one pattern, in tiktoken's dialect. It matches every character, and each match is a word."""

PASSES = {name: passes for passes, names in _SEVERAL.items() for name in names.split()}
"""Pre-tokenizers with several patterns, in the dialect of the `regex` package, applied one after the other: each
divides every part that the one before has left into its matches and what is between them."""

CHARACTER_LEVEL = frozenset({"gemma4", "granite-embed-multi-311m", "sarvam-moe"})
"""Pre-tokenizers of BPE tokenizers that merge characters, as SentencePiece does, within the lines of a text."""

WITHOUT_MARKS = frozenset(["tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "kimi-k2"])
"""Pre-tokenizers for which llama.cpp treats combining marks other than the models' own tokenizers do."""
