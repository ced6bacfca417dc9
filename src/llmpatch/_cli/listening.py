"""The port that a server listens on.

``Port(1)`` is click's type of it. Kubernetes writes LLMPATCH_SERVE_PORT=tcp://10.0.0.1:8000 into every container beside a service
called llmpatch-serve, which is the very name that ``--port`` has in the environment: that is nobody's wish.
"""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource


class Port(click.IntRange):
    """A port, from ``least`` on."""

    def __init__(self, least: int) -> None:
        super().__init__(least, 65535)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A number in the range, the default for a service's address in the environment, or a usage error."""
        if param and ctx and param.name and ctx.get_parameter_source(param.name) is ParameterSource.ENVIRONMENT:
            value = param.get_default(ctx) if str(value).startswith("tcp://") else value
        return super().convert(value, param, ctx)
