"""The server: a base behind patches, over HTTP as OpenAI's clients speak it.

    limits = Limits()
    engine = Engine(load_base("smollm2"), limits)
    desk = Desk(engine, given=[load_patch("patches/smollm2/refusal")])
    app = make_app(desk, limits)                  # an ASGI application; `run_server(app, ...)` serves it

One thread owns the model and decodes one ragged batch, in which every row may stand behind a patch set of its own
(``engine``, ``keyvalues``). ``desk`` knows which set is active and which sets are ready; ``keeper`` follows the store and
asks the canary. HTTP lives in ``app`` and what it imports. Needs the extra ``serve``. docs/serving.md explains it.
"""
