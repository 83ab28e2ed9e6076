"""What differs between the APIs that the gateway speaks, besides the requests and answers: errors, and the frame of a
stream.
"""

from __future__ import annotations

from adapter.errors import HttpError, to_http_error


class Dialect:
    """OpenAI's API, and the base class of others.

    `keep_alive` is what a stream without news has, and `end` is its end. An error in the middle of a stream is its last
    event, without `end`, so that a client does not take the answer for complete. `id_headers` are the names of headers
    with the id of a request, besides `x-request-id`.
    """

    keep_alive = b": keep-alive\n\n"
    end = b"data: [DONE]\n\n"
    id_headers: tuple[bytes, ...] = ()

    def http_error(self, error: Exception) -> HttpError:
        """Return the response for `error`."""
        return to_http_error(error)

    def error_body(self, error: HttpError, request_id: str) -> bytes:
        """Return the JSON of an error response."""
        return error.body

    def error_event(self, body: bytes) -> bytes:
        """Return the event of a stream that reports an error with the JSON `body`."""
        return b"data: " + body + b"\n\n"


OPENAI = Dialect()
