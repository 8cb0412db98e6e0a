"""Make the plugin one program that needs nothing of the host: ``python3 -m flannel_cni.build FILE``.

Hosts such as Flatcar and Talos have no Python, some no shared C library. So the interpreter itself is linked
statically, with the modules that the plugin imports inside it as frozen bytecode. That takes a Python whose library is
there as an archive with all that the plugin needs built in, as Debian's is: packages gcc, libc6-dev and python3-dev.
The program is for the architecture that it is built on.
"""

from __future__ import annotations

import argparse
import importlib
import marshal
import pkgutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

LINES_PER_BYTES = 24
NOT_IN_THE_PROGRAM = {"__main__", "build"}
CODECS = ("ascii", "latin_1", "unicode_escape", "utf_8")
"""What is asked for by name, by the interpreter and by what makes text printable."""


class CannotBuild(Exception):
    """What is lacking on this machine, and what would help."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="flannel_cni.build", description="Build the CNI plugin as one program.")
    parser.add_argument("file", type=Path, help="where to put it")
    try:
        build(parser.parse_args().file)
    except (CannotBuild, OSError) as error:
        print(f"flannel_cni.build: {error}", file=sys.stderr)
        return 1
    return 0


def build(target: Path) -> None:
    """Raises CannotBuild and OSError, with what stood at ``target`` untouched."""
    library = _library()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building") as name:
        directory = Path(name)
        (directory / "modules.h").write_text(_frozen(_sources()))
        program = directory / "flannel"
        command = ["gcc", "-O1", "-static", "-s", f"-I{directory}", f"-I{sysconfig.get_path('include')}"]
        command += [str(Path(__file__).with_name("program.c")), str(library), *_libraries(), "-o", str(program)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise CannotBuild("gcc is missing: apt-get install gcc libc6-dev") from None
        if done.returncode:
            raise CannotBuild(f"gcc cannot make it; is python3-dev complete?\n{done.stderr}")
        program.replace(target)


def _library() -> Path:
    directory, name = sysconfig.get_config_vars("LIBPL", "LIBRARY")
    library = Path(str(directory), str(name))
    if not library.is_file():
        raise CannotBuild(
            f"{sys.executable} has no library at {library}: apt-get install python3-dev, and use Debian's python3"
        )
    return library


def _libraries() -> list[str]:
    """What the interpreter's own modules are linked with, as they were when it was built."""
    words = " ".join(str(value) for value in sysconfig.get_config_vars("MODLIBS", "LIBS", "SYSLIBS") if value)
    return words.split()


def _sources() -> dict[str, Path]:
    """Every module, by name, that the program has and the interpreter has not got inside it. Raises CannotBuild."""
    package = importlib.import_module("flannel_cni")
    ours = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in NOT_IN_THE_PROGRAM]
    script = "\n".join(
        [
            "import sys",
            "from importlib.machinery import FileFinder, SourceFileLoader",
            # As in the program: no module comes out of a shared library, and what is faster with one does without.
            "sys.path_hooks[:] = [FileFinder.path_hook((SourceFileLoader, ['.py']))]",
            "sys.path_importer_cache.clear()",
            f"sys.path[:0] = {[entry for entry in sys.path if entry]!r}",
            *(f"import flannel_cni.{name}" for name in ours),
            *(f"import encodings.{name}" for name in CODECS),
            "for name, module in sorted(sys.modules.items()):",
            "    if (spec := getattr(module, '__spec__', None)) and spec.has_location:",
            "        print(name, spec.origin)",
        ]
    )
    listed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, cwd=Path.cwd(), check=False
    )
    if listed.returncode:
        raise CannotBuild(
            f"{sys.executable} has not got built in all that the plugin needs; use Debian's python3\n{listed.stderr}"
        )
    return {name: Path(origin) for name, origin in (line.split(" ", 1) for line in listed.stdout.splitlines())}


def _frozen(sources: dict[str, Path]) -> str:
    """The header that program.c includes."""
    lines, table = [], []
    for number, (name, path) in enumerate(sources.items()):
        code = marshal.dumps(compile(path.read_bytes(), f"<{name}>", "exec", dont_inherit=True, optimize=2))
        lines.append(f"static const unsigned char module{number}[] = {{ /* {name} */")
        lines += [
            f"{','.join(map(str, code[start : start + LINES_PER_BYTES]))},"
            for start in range(0, len(code), LINES_PER_BYTES)
        ]
        lines.append("};")
        package = int(path.name == "__init__.py")
        table.append(f'{{.name = "{name}", .code = module{number}, .size = {len(code)}, .is_package = {package}}},')
    return "\n".join([*lines, "static const struct _frozen modules[] = {", *table, "{0}};\n"])


if __name__ == "__main__":
    raise SystemExit(main())
