"""The contract, checked by third-party tools: see README.md in this folder."""
