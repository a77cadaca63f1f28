"""The `wheeltapper` command: standard library only, so that the smallest install can carry it."""
