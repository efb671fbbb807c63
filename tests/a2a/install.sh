#!/bin/sh
exec "$(dirname "$0")/../npm.sh" a2a "the official A2A JavaScript SDK: 26 MB"
