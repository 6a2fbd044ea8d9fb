"""Large payloads as files: written once, read once, and handed on as descriptors (docs/decisions/0008)."""
