"""A patch in front of an OpenAI-compatible server that already runs: clients stay as they are, requests get the patch.

    app = make_app(Settings("http://127.0.0.1:8000", plan_for(read_description(Path("out")), adapter="refusal")))

Knows requests and exports; loads no model. Needs the extra ``llmpatch[serve]``.
"""

from llmpatch.gateway.app import Settings, make_app
from llmpatch.gateway.plan import Plan, plan_for
from llmpatch.gateway.probe import probe

__all__ = ["Plan", "Settings", "make_app", "plan_for", "probe"]
