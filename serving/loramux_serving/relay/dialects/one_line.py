"""JSON that stays on one line for every reader. Pure.

Some readers of streams, httpx's `iter_lines` and so huggingface_hub among them, end a line at U+0085, U+2028 and
U+2029 too, which JSON lets stand as they are. Escaped, they mean the same.
"""

_BREAKS = (
    ("\u0085".encode(), rb"\u0085"),
    ("\u2028".encode(), rb"\u2028"),
    ("\u2029".encode(), rb"\u2029"),
)


def one_line(document: bytes) -> bytes:
    """`document`, which is JSON in UTF-8, without characters that a reader could take for the end of a line."""
    if document.isascii():
        return document
    for raw, escaped in _BREAKS:
        document = document.replace(raw, escaped)
    return document
