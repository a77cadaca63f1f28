"""Write the Python stubs of wheeltapper/v1/*.proto into the package wheeltapper_proto.

    python proto/generate.py            write them
    python proto/generate.py --check    write nothing; exit 1 and name each committed stub that differs

The messages keep their file name and package (wheeltapper/v1/…, wheeltapper.v1), which other languages share; only the
Python module moves, for the reason in docs/decisions/0001-stubs-home.md.
"""

from __future__ import annotations

import importlib.resources
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "wheeltapper_proto"
IMPORT = "from wheeltapper.v1 import "
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def main(words: list[str]) -> int:
    if words not in ([], ["--check"]):
        sys.stderr.write("usage: python proto/generate.py [--check]\n")
        return 2
    stubs = generate()
    if words == ["--check"]:
        return check(stubs)
    for name, text in stubs.items():
        (PACKAGE / name).write_text(text, encoding="utf-8")
    return 0


def generate() -> dict[str, str]:
    """The text of every stub by its file name in `wheeltapper_proto`. Raises RuntimeError where protoc refuses."""
    sources = sorted((HERE / "wheeltapper" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        typing_plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
        arguments = [
            "protoc",
            f"-I{HERE}",
            f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy_grpc={typing_plugin}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            f"--grpc_python_out={folder}",
            f"--mypy_grpc_out=quiet:{folder}",
            *(source.relative_to(HERE).as_posix() for source in sources),
        ]
        code = protoc.main(arguments)
        if code != 0:
            raise RuntimeError(f"protoc exited with {code}; its own lines above say why")
        written = Path(folder) / "wheeltapper" / "v1"
        names = [source.stem + suffix for source in sources for suffix in SUFFIXES]
        return {name: rehome((written / name).read_text(encoding="utf-8")) for name in names}


def rehome(text: str) -> str:
    """Stubs import each other by the path of the .proto; point that one line at the package that holds them."""
    moved = []
    for line in text.splitlines(keepends=True):
        names = line.removeprefix(IMPORT)
        moved.append(line if names == line else "from wheeltapper_proto import " + names)
    return "".join(moved)


def check(stubs: dict[str, str]) -> int:
    committed = {path.name: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*_pb2*")}
    different = sorted(name for name in stubs.keys() | committed.keys() if stubs.get(name) != committed.get(name))
    for name in different:
        sys.stderr.write(f"{PACKAGE.name}/{name} is not what the .proto files say; run `make proto` and commit it\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
