"""What a model's tokenizer makes of text and of messages, and text of token ids."""

from __future__ import annotations

from adapter.api.chat.request import ChatCompletionRequest
from adapter.api.tokenize.types import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from adapter.api.validation import check_modalities
from adapter.errors import BadRequest
from adapter.generation.models import Model, Models
from adapter.generation.prepare import DEFAULTS, Rules, write
from adapter.offload import aside
from adapter.prompt.plain_text import begun, known_tokens, text_of, written_tokens
from subnet.wire.tensors import TokenIds


async def tokenized(request: TokenizeRequest, models: Models, *, size: int = 0, rules: Rules = DEFAULTS) -> Tokenized:
    """For a request of `size` bytes. Raises what `models.get` does, and BadRequest and InvalidRequest for what the
    model or its template does not take.
    """
    model = await models.get(_name(request.model, models))
    if request.prompt is not None:
        tokens = await aside(size, written_tokens, model, request.prompt, "prompt")
    else:
        tokens = await _of_messages(request, model, size, rules)
    special = request.messages is None if request.add_special_tokens is None else request.add_special_tokens
    ids: list[int] = (begun(model, tokens) if special else tokens).tolist()
    return Tokenized(
        count=len(ids),
        max_model_len=model.card.context_length,
        tokens=ids,
        token_strs=[text_of(model, [token]) for token in ids] if request.return_token_strs else None,
    )


async def detokenized(request: DetokenizeRequest, models: Models, *, size: int = 0) -> Detokenized:
    """Raises what `models.get` does, and BadRequest for a token that the model does not have."""
    model = await models.get(_name(request.model, models))

    def read() -> str:
        return text_of(model, known_tokens(model, request.tokens, "tokens").tolist())

    return Detokenized(await aside(size, read))


async def _of_messages(request: TokenizeRequest, model: Model, size: int, rules: Rules) -> TokenIds:
    assert request.messages is not None
    check_modalities(request.messages, ())
    asked = ChatCompletionRequest(
        model=model.card.id,
        messages=request.messages,
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        chat_template=request.chat_template,
        chat_template_kwargs=request.chat_template_kwargs,
    )
    _, tokens = await write(asked, model, size=size, rules=rules)
    return tokens


def _name(given: str | None, models: Models) -> str:
    """The only model, where none is named."""
    if given is not None:
        return given
    names = list(models.cards())
    if len(names) == 1:
        return names[0]
    message = f"Missing required parameter: 'model'. Available models: {', '.join(sorted(names)) or 'none'}."
    raise BadRequest(message, param="model", code="missing_required_parameter")
