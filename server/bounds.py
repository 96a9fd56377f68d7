"""What a client may have of a connection, and what it is told past that."""

MOST_URL = 16 * 1024  # bytes
MOST_HEAD = 32 * 1024  # bytes of URL and headers
MOST_HEADERS = 100
MOST_PIPELINED = 32  # requests sent before the first is answered
SPARE_CHUNKS, BYTES_PER_CHUNK = 1000, 64  # all but the spare chunks of a body have this many bytes on average
LINGER = 2.0  # seconds, and
GRACE = 0.5  # seconds that a stopping server still waits for a request on a connection
MOST_SKIPPED = 1024 * 1024  # bytes of a body that is read to no end rather than to have its client connect anew
MOST_DISCARDED = 16 * 1024 * 1024  # bytes that a refused client may go on sending before it is cut off

Refusal = tuple[int, str]
SLOW_HEAD: Refusal = (408, "the request's header did not arrive in time")
BAD_URL: Refusal = (400, "the request cannot be read: Invalid URL")
LONG_URL: Refusal = (414, f"the URL has more than {MOST_URL} bytes")
LONG_HEAD: Refusal = (431, f"the request's header has more than {MOST_HEAD} bytes or {MOST_HEADERS} lines")
SMALL_CHUNKS: Refusal = (400, f"the body comes in chunks of less than {BYTES_PER_CHUNK} bytes")
PIPELINED: Refusal = (400, f"more than {MOST_PIPELINED} requests were sent before the first was answered")
CONNECT: Refusal = (501, "this server is no proxy")
