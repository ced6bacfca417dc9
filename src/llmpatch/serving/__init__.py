"""The server: a base behind patches, over HTTP as OpenAI's clients speak it.

    serving = open_serving("smollm2", None, ["patches/smollm2/refusal"], limits=Limits())
    serving.app, serving.level                      # an ASGI application; `running.run_server` serves it

One thread owns the model and decodes one ragged batch, in which every row may stand behind a patch set of its own
(``engine``, ``batch``, ``keyvalues``). ``desk`` knows which set is active and which sets are ready; ``keeper`` follows the
store and asks the canary. HTTP lives in ``app`` and what it imports. Needs the extra ``serve``. docs/serving.md explains it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpatch.errors import UsageError

if TYPE_CHECKING:
    from llmpatch.serving.admin import Admin
    from llmpatch.serving.desk import Desk
    from llmpatch.serving.engine import Engine
    from llmpatch.serving.limits import Limits

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


@dataclass(frozen=True, eq=False)
class Serving:
    """A server that is ready to run.

    Attributes:
        app: The ASGI application.
        desk: What answers.
        name: What clients call the base.
        limits: As they hold on this base.
        warnings: What the operator must know.
    """

    app: Any
    desk: Desk
    name: str
    limits: Limits
    warnings: tuple[str, ...]

    @property
    def level(self) -> str:
        """The active patch level."""
        return self.desk.active.level


def open_serving(
    base_name: str,
    revision: str | None,
    patch_names: Sequence[str],
    *,
    limits: Limits,
    fixed: bool = False,
    name: str | None = None,
    admin: Admin | None = None,
    canary_seconds: float = 60.0,
) -> Serving:
    """Load a base and its patches, compute what requests share, and prove that it is applied.

    Args:
        base_name: As for :func:`~llmpatch.bases.load_base`.
        revision: As there.
        patch_names: Paths or installed names, in order; none to follow what is active in the store.
        limits: Of requests.
        fixed: Requests may not name a patch set of their own.
        name: What clients call the base.
        admin: Who may change what is active; nobody by default.
        canary_seconds: Time between two proofs.

    Raises:
        UsageError: the extra is not installed; no such base or patch; a base that cannot be served.
        WrongBaseError: a patch that was made for another base.
        IntegrityError: a damaged patch or store.
        CanaryError: what would be served is not the patched model.
    """
    check_installed()
    from llmpatch.serving.admin import Admin
    from llmpatch.serving.app import make_app
    from llmpatch.serving.desk import Desk
    from llmpatch.serving.keeper import Keeper
    from llmpatch.store import default_store, load_patch

    patches = [load_patch(patch) for patch in patch_names]
    # OpenMP's threads wait for work at full speed only while there are no more of them than processors, and every thread that
    # computes keeps a team of its own until it ends. So what loads the base ends, and then the engine's thread alone computes.
    with ThreadPoolExecutor(1) as loader:
        engine = loader.submit(_open_engine, base_name, revision, limits).result()
    engine.start()
    desk = Desk(engine, patches or None, default_store(), fixed)
    keeper = Keeper(desk, canary_seconds)
    served = name or _served_name(base_name)
    app = make_app(desk, keeper, served=served, admin=admin or Admin())
    return Serving(app, desk, served, engine.limits, tuple(_warnings(desk)))


def check_installed() -> None:
    """Whether the extra is there, before a part of the server is imported.

    Raises:
        UsageError: names what is missing.
    """
    if missing := [package for package in _NEEDED if importlib.util.find_spec(package) is None]:
        raise UsageError(f"the server needs {', '.join(missing)}", hint="pip install 'llmpatch[serve]'")


def _served_name(base_name: str) -> str:
    """What clients call a base: a folder's own name, a file's without its ending, any other name as it is."""
    path = Path(base_name)
    if not path.exists():
        return base_name
    return path.stem if path.is_file() else path.resolve().name


def _open_engine(base_name: str, revision: str | None, limits: Limits) -> Engine:
    from llmpatch.bases import load_base
    from llmpatch.serving.engine import Engine

    base = load_base(base_name, revision)
    base.fingerprint  # noqa: B018 - computed once, here
    return Engine(base, limits)


def _warnings(desk: Desk) -> list[str]:
    found = [note for patch in desk.given for note in patch.check_base(desk.engine.base)]
    found += desk.notes
    if len(desk.given) > 1:
        found.append("several patches are put one after another in the order given; together they were not measured")
    if desk.active.level == "none":
        found.append("nothing is active in the store on this base: it is served UNPATCHED")
    return found
