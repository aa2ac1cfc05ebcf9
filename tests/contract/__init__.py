"""The contract checked by others' tools: see README.md beside this file."""
