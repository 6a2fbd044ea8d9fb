"""The protocol without I/O: messages, the stream that they come in, and the values that they carry."""
