"""The words that the core adds to the command line."""

from wheeltapper.inspect import inspect
from wheeltapper.release_verb import release

__all__ = ["inspect", "release"]
