"""Names of the sets that `mimo-audio eval` is given."""

from collections.abc import Sequence
from pathlib import Path

from mimo_audio.errors import MimoError


def folder_names(sources: Sequence[Path]) -> list[str]:
    """Of every source its folder's name, with as many parents as tell it from the others.

    Raises MimoError if a folder comes twice.
    """
    folders = [(source if source.is_dir() else source.parent).resolve() for source in sources]
    if len(set(folders)) < len(folders):
        twice = next(source for i, source in enumerate(sources) if folders[i] in folders[:i])
        raise MimoError(f"{twice}: expected every set in a folder of its own, got this one twice")
    return _shortest(folders)


def set_names(manifests: Sequence[Path]) -> dict[str, Path]:
    """The manifests by their names: file and folder, with as many more parents as tell it from the others.

    A file that is called manifest.jsonl goes by its folder alone. Raises MimoError if a manifest comes twice.
    """
    paths = [path.resolve().with_suffix("") for path in manifests]
    if len(set(paths)) < len(paths):
        raise MimoError(f"{manifests[-1]}: expected every manifest once, got one twice")
    shown = [path.parent if path.name == "manifest" else path for path in paths]
    return dict(zip(_shortest(shown), manifests, strict=True))


def _shortest(paths: Sequence[Path]) -> list[str]:
    names = []
    for path in paths:
        count = 1
        while sum(other.parts[-count:] == path.parts[-count:] for other in paths) > 1:
            count += 1
        names.append("/".join(path.parts[-count:]))
    return names
