# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Makes ``anomalib train --model Hgad`` find this package without importing it.

anomalib knows only models and datamodules whose classes have been imported; it has no plugin mechanism. The wheel
therefore installs a ``.pth`` file that calls :func:`install` when Python starts. It waits until ``anomalib.models`` and
``anomalib.data`` are imported, then registers this package's classes there. Until then only this file is loaded, and an
error here never stops anomalib. The environment variable ``ANOMALIB_HGAD_AUTOLOAD=0`` (or
``false``, ``no``, ``off``) turns this off.
"""

# Every Python start loads this file: what it needs beyond `sys` is imported where it is used.
from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import ClassVar

ADDITIONS = {
    "anomalib.data": {"Cifar10": "anomalib_hgad.data.cifar10", "MultiClass": "anomalib_hgad.data.multi_class"},
    "anomalib.models": {
        "Hgad": "anomalib_hgad.models.hgad.lightning_model",
        "UniAd": "anomalib_hgad.models.uniad.lightning_model",
    },
}
"""Classes to register in a module of anomalib, and the modules that define them."""


def register(module: ModuleType) -> None:
    """Add this package's classes to a module of anomalib, except those whose name anomalib already uses.

    Args:
        module: ``anomalib.data`` or ``anomalib.models``, just imported.
    """
    for name, home in ADDITIONS[module.__name__].items():
        _register_class(module, name, home)


def _register_class(module: ModuleType, name: str, home: str) -> None:
    import warnings  # noqa: PLC0415
    from importlib import import_module  # noqa: PLC0415

    from anomalib_hgad.compatibility import explain  # noqa: PLC0415

    if hasattr(module, name):
        if getattr(module, name).__module__ != home:
            warnings.warn(
                f"anomalib now has its own {name}; anomalib-hgad's is not registered. Import it as {home}.{name}.",
                stacklevel=2,
            )
        return
    try:
        setattr(module, name, getattr(import_module(home), name))
    except Exception as error:  # noqa: BLE001 - a broken plugin must not break its host
        # The same text for all classes if the version of anomalib is the cause: Python shows it once.
        explanation = explain(error) if isinstance(error, ImportError) else None
        unexplained = f"anomalib-hgad is installed, but {name} could not be registered ({type(error).__name__}: "
        warnings.warn(explanation or f"{unexplained}{error}).", stacklevel=2)


class _RegisteringLoader:
    """Loads a module with its own loader, then registers the classes that wait for it.

    This package may itself import anomalib, and anomalib.metrics and anomalib.models import anomalib.data. The
    outermost of these imports must end first, because registering imports all of them.
    """

    imports_under_way = 0
    waiting: ClassVar[list[ModuleType]] = []

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)  # `python -m` asks for the code of a module before it is loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        cls = type(self)
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader
        cls.imports_under_way += 1
        try:
            self.loader.exec_module(module)
        finally:
            cls.imports_under_way -= 1
        if module.__name__ in ADDITIONS:
            cls.waiting.append(module)
        while cls.waiting and not cls.imports_under_way:
            register(cls.waiting.pop(0))


class _AnomalibFinder:
    """Finds the packages of anomalib and the modules of this package; leaves all others to the other finders."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        outermost = fullname.startswith("anomalib.") and fullname.count(".") == 1
        if not outermost and not fullname.startswith("anomalib_hgad."):
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):  # Python itself skips such finders
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _RegisteringLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


def install() -> None:
    """Wait for anomalib's modules; register at once in those already imported."""
    # By its name: where this module is loaded again its class is another, and two finders would ask each other forever.
    if not any(type(finder).__name__ == _AnomalibFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _AnomalibFinder())
    for name in ADDITIONS:
        if name in sys.modules:
            register(sys.modules[name])
