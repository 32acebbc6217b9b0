"""What a run may be called, and where it may be written: a name becomes part of paths."""

from __future__ import annotations

from pathlib import Path

_LONGEST = 200  # bytes; file systems take 255, and files beside the folder have longer names


def check_name(name: str) -> None:
    """Raise `ValueError` for a name that leads out of `runs/`, or that no folder can have. `a/b` is a folder in one."""
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise ValueError(
                f"name {name!r} leads to another folder than one of its own; give it a plain name"
            )
        if part.startswith("-"):
            raise ValueError(f"name {name!r} begins with a dash, like an option; give it a plain name")
        if not part.isprintable():
            raise ValueError("name has a character that cannot be shown; give it a plain name")
        if len(part.encode(errors="surrogatepass")) > _LONGEST:
            raise ValueError(f"name is longer than {_LONGEST} bytes; give it a shorter one")


def check_folder(path: str) -> None:
    """Raise `ValueError` for an `output_dir` that is no path, or of a user who is not here."""
    if not path.strip():
        raise ValueError("output_dir is empty; name a folder, such as runs/mine")
    if "\0" in path:
        raise ValueError("output_dir has a zero byte in it; name a folder, such as runs/mine")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"output_dir {path!r}: there is no such user; name another folder") from None
