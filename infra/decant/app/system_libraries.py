"""Debian packages that Python packages look for when the app runs, and that their wheels do not bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from packaging.utils import canonicalize_name

from decant.app.requirements import Requirements

_GL = ("libgl1", "libglib2.0-0t64")
_PANGO = ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0")

_NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cairocffi": ("libcairo2",),
        "cairosvg": ("libcairo2",),
        "ffmpeg-python": ("ffmpeg",),
        "gitpython": ("git",),
        "graphviz": ("graphviz",),
        "opencv-contrib-python": _GL,
        "opencv-python": _GL,
        "pdf2image": ("poppler-utils",),
        "pyaudio": ("libportaudio2",),
        "pydub": ("ffmpeg",),
        "pylibdmtx": ("libdmtx0t64",),
        "pypandoc": ("pandoc",),
        "pytesseract": ("tesseract-ocr",),
        "python-magic": ("libmagic1t64",),
        "pyvips": ("libvips42t64",),
        "pyzbar": ("libzbar0t64",),
        "sounddevice": ("libportaudio2",),
        "wand": ("libmagickwand-7.q16-10",),
        "weasyprint": _PANGO,
    }
)
"""As the packages' own installation pages say, by Debian 13's names."""


def system_libraries(requirements: Requirements) -> tuple[str, ...]:
    """The Debian packages that the app's packages need when it runs."""
    return tuple(dict.fromkeys(needed for _, needs in _found(requirements) for needed in needs))


def system_notes(requirements: Requirements) -> tuple[str, ...]:
    """A sentence for each package that needs some."""
    return tuple(
        f"{name} needs {_and(needs)} of Debian, so machines install it" for name, needs in _found(requirements)
    )


def _found(requirements: Requirements) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The packages that need some, each once."""
    names = (canonicalize_name(entry.package.name) for entry in requirements.packages if entry.package)
    for name in dict.fromkeys(names):
        if name in _NEEDS:
            yield name, _NEEDS[name]


def _and(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
