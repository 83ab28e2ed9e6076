"""Types of the content blocks of Anthropic's messages, as tagged unions by `type`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

# Far more than conversations need; they limit what a request costs.
MAX_BLOCKS = 1024

_LENGTH = Meta(max_length=MAX_BLOCKS)


class Block(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base class of blocks. `cache_control` has no effect: the nodes manage their own caches."""

    cache_control: dict[str, Any] | None = None


class TextBlock(Block, frozen=True, kw_only=True, tag="text"):
    """Text. `citations`, which an earlier answer may have, are not for the model."""

    text: str
    citations: list[Any] | None = None


TextBlocks = Annotated[list[TextBlock], _LENGTH]


class Base64Source(Struct, frozen=True, tag_field="type", tag="base64"):
    media_type: str
    data: str


class UrlSource(Struct, frozen=True, tag_field="type", tag="url"):
    url: str


class FileSource(Struct, frozen=True, tag_field="type", tag="file"):
    file_id: str


class PlainTextSource(Struct, frozen=True, tag_field="type", tag="text"):
    data: str
    media_type: str | None = None


class ContentSource(Struct, frozen=True, tag_field="type", tag="content"):
    content: str | TextBlocks


class ImageBlock(Block, frozen=True, kw_only=True, tag="image"):
    source: Base64Source | UrlSource | FileSource


class DocumentBlock(Block, frozen=True, kw_only=True, tag="document"):
    """A document. One of text becomes text with its title and context before it."""

    source: Base64Source | PlainTextSource | ContentSource | UrlSource | FileSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Block, frozen=True, kw_only=True, tag="search_result"):
    title: str
    source: str
    content: TextBlocks


class ThinkingBlock(Block, frozen=True, kw_only=True, tag="thinking"):
    """Reasoning of an earlier answer. Its signature is accepted, whoever made it, and not checked."""

    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Block, frozen=True, kw_only=True, tag="redacted_thinking"):
    """Reasoning that only its author can read. It is left out."""

    data: str


class ToolUseBlock(Block, frozen=True, kw_only=True, tag="tool_use"):
    """Call of a tool. Who called it is not for the model."""

    id: str
    name: str
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


class ServerBlock(Block, frozen=True, kw_only=True):
    """Base class of blocks about what runs at Anthropic. They are left out, and named in a header."""

    @staticmethod
    def is_left_out(given: dict[str, Any]) -> bool:
        return True


class ServerToolUse(ServerBlock, frozen=True, kw_only=True, tag="server_tool_use"):
    pass


class WebSearchResult(ServerBlock, frozen=True, kw_only=True, tag="web_search_tool_result"):
    pass


class WebFetchResult(ServerBlock, frozen=True, kw_only=True, tag="web_fetch_tool_result"):
    pass


class CodeExecutionResult(ServerBlock, frozen=True, kw_only=True, tag="code_execution_tool_result"):
    pass


class BashCodeExecutionResult(ServerBlock, frozen=True, kw_only=True, tag="bash_code_execution_tool_result"):
    pass


class TextEditorCodeExecutionResult(
    ServerBlock, frozen=True, kw_only=True, tag="text_editor_code_execution_tool_result"
):
    pass


class ToolSearchResult(ServerBlock, frozen=True, kw_only=True, tag="tool_search_tool_result"):
    pass


class McpToolUse(ServerBlock, frozen=True, kw_only=True, tag="mcp_tool_use"):
    pass


class McpToolResult(ServerBlock, frozen=True, kw_only=True, tag="mcp_tool_result"):
    pass


class ContainerUpload(ServerBlock, frozen=True, kw_only=True, tag="container_upload"):
    pass


class ToolReference(ServerBlock, frozen=True, kw_only=True, tag="tool_reference"):
    pass


AnyServerBlock = (
    ServerToolUse
    | WebSearchResult
    | WebFetchResult
    | CodeExecutionResult
    | BashCodeExecutionResult
    | TextEditorCodeExecutionResult
    | ToolSearchResult
    | McpToolUse
    | McpToolResult
    | ContainerUpload
    | ToolReference
)

ShownBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock
"""Block of a user's message, or of a tool's result, that the model is shown."""


class ToolResultBlock(Block, frozen=True, kw_only=True, tag="tool_result"):
    """Result of a tool call. Without content, it is empty."""

    tool_use_id: str
    content: str | Annotated[list[ShownBlock | AnyServerBlock], _LENGTH] | None = None
    is_error: bool | None = None


UserBlocks = Annotated[list[ShownBlock | ToolResultBlock | AnyServerBlock], _LENGTH]
AssistantBlocks = Annotated[
    list[TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | AnyServerBlock], _LENGTH
]
