"""How lm-evaluation-harness asks a model, without its tasks."""


def ask(lm, kind, arguments):
    """A model's answers to requests of one kind, in their order."""
    from lm_eval.api.instance import Instance

    return getattr(lm, kind)([Instance(kind, {}, a, i) for i, a in enumerate(arguments)], disable_tqdm=True)
