"""The model in Hugging Face format against the GGUF file that it was made from."""

from __future__ import annotations

from subnet.models.card import describe
from subnet.models.pretrained import describe_pretrained
from subnet.models.resolve import resolve
from subnet.node_info import TokenizerArtefact
from tests.engines.conftest import Servers
from tests.engines.server import MODEL, NAME, post
from tests.real_engine import chat, make_engine, run


def test_the_tokenizer_is_the_same() -> None:
    """Both have the same tokens, control tokens, chat template and end tokens."""
    card, artefact = describe(resolve(None, print), NAME)
    converted_card, converted = describe_pretrained(MODEL, NAME)
    for name in ("context_length", "chat_template", "bos_token", "eos_token", "stop_tokens"):
        assert getattr(converted_card, name) == getattr(card, name)
    ours, theirs = TokenizerArtefact.from_bytes(artefact), TokenizerArtefact.from_bytes(converted)
    for name in ("pieces", "control", "user_defined", "bos_id", "add_bos"):
        assert getattr(theirs, name) == getattr(ours, name)


async def test_the_weights_are_the_same(servers: Servers) -> None:
    """vLLM's greedy tokens are llama.cpp's, where the answer is clear enough for weights rounded to 16 bits."""
    prompt = chat("What is the capital of France?")
    async with make_engine() as engine:
        tokens, _ = await run(engine, prompt, temperature=0.0, max_tokens=6)
    body = {"model": NAME, "prompt": prompt.tolist(), "max_tokens": 6, "temperature": 0, "return_token_ids": True}
    assert post(f"{servers.first.url}/v1/completions", body)["choices"][0]["token_ids"] == tokens
