"""The folder of static files that an app itself serves under /static/, told from its source."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from decant.app.entry_point import SPEC
from decant.app.model import WebProcess
from decant.app.python_source import Modules


def static_folder(folder: Path, web: WebProcess) -> str | None:
    """The folder, relative to the app folder, that nginx can serve in the app's place; None where there is none.

    It lies beside the module that makes the Flask object. Where that module cannot be told, it is `static` in the
    folder that gunicorn starts in.
    """
    start = str(web.gunicorn.get("chdir", "."))
    roots = [part for part in str(web.gunicorn.get("pythonpath", "")).split(",") if part][::-1]
    modules = Modules(folder, tuple(dict.fromkeys([*roots, start, "."])))
    match = SPEC.fullmatch(web.wsgi_app)
    found = _of_flask_object(modules, match["module"], (match["object"] or "application")) if match else None
    if found is None:
        found = "static" if start == "." else f"{start}/static"
    return found if found and (folder / found).is_dir() else None


def _of_flask_object(modules: Modules, module: str, expression: str) -> str | None:
    """The folder that the one Flask object uses: empty where that is not under /static/, None where it is unknown."""
    _, path = modules.resolve(module, expression.partition("(")[0])
    tree = modules.source(path).tree if path else None
    if path is None or tree is None:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Flask")]
    if len(calls) != 1 or len(calls[0].args) > 1:
        return None
    call = calls[0]
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if None in keywords or "root_path" in keywords or not call.args or ast.unparse(call.args[0]) != "__name__":
        return None
    values: dict[str, str | None] = {}
    for name in ("static_folder", "static_url_path"):
        value = keywords.get(name)
        if value is not None and not (isinstance(value, ast.Constant) and isinstance(value.value, str | None)):
            return None
        values[name] = str(value.value) if value is not None and value.value is not None else None
    own = values["static_folder"] if "static_folder" in keywords else "static"
    if own is None:
        return ""
    url = values["static_url_path"] or "/" + own.rstrip("/").rpartition("/")[2]
    where = os.path.normpath(path.parent.relative_to(modules.folder) / own)
    return where if url.rstrip("/") == "/static" and not where.startswith(("/", "..")) else ""
