"""The server side of HTTP/2 (RFC 9113) and of gRPC on it, without any I/O: bytes in, calls of a listener, bytes out.

gRPC uses a small part of HTTP/2, over and over in the same way: requests whose header blocks are the same bytes, one message in one DATA frame,
answers with constant headers. That part is made cheap here (docs/decisions/0006-own-http2-framing.md has the figures beside the `h2` library);
everything else is there, and bounded. Needs `hpack` (the extra `raftkv[etcd]`) for its tables and its Huffman code.
"""
