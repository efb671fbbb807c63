"""The demo mesh: two Envoys, Palisade, an MCP server and an A2A agent on one machine.

The mesh tests run the same thing.
"""
