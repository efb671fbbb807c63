#!/bin/sh
exec "$(dirname "$0")/../npm.sh" mcp "the official MCP TypeScript SDKs: 45 MB"
