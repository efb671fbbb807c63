#!/bin/sh
exec "$(dirname "$0")/../npm.sh" idp "the identity provider of the tests: 4 MB"
