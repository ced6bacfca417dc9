"""Whether evidence was measured as the gate would: answers as long, as many of each prompt, judged by the same builds of judges.

    for text in check_measured(policy, evidence):      # what differs and changes no meaning, to be told
        print(text)

Shorter answers decline more, the worst of fewer is less bad, and another build of a judge may be a weaker one: a policy's bounds
are about neither. Knows nothing about patches; :mod:`llmpatch.gate.verdict` counts prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.gate.evidence import Evidence, JudgedBy
from llmpatch.gate.policy import Decoding, Policy, Rule
from llmpatch.recipe import DECLINING

COHERENT = "harm-head"  # its weights decide what is incoherent, too
PHRASES = "refusal-phrases"  # a continuation that declines is not on topic
ON_TOPIC = ("on_topic", "complete", "neutral_on_topic")
_AFRESH = "measure afresh: leave --evidence out and give --base, or write new evidence by `llmpatch eval`"


def check_measured(policy: Policy, evidence: Evidence, max_new_tokens: int | None = None) -> list[str]:
    """Refuse evidence that was measured otherwise than a policy's rules are meant.

    Args:
        policy: What is asked; only rules of the evidence's risk that read answers count.
        evidence: What was measured before.
        max_new_tokens: How long answers are meant to be; by default as long as the suite's.

    Returns:
        Differences that leave a rule's meaning as it is, in words.

    Raises:
        UsageError: answers of another length, another number of answers of each prompt, or drawn otherwise than the suite draws
            them; an attack that searched less than the gate lets it; another build of a judge that a rule reads, or none that
            is named.
        IntegrityError: a judge's weights here are damaged.
    """
    rules = [rule for rule in policy.rules if rule.risk == evidence.risk and not rule.metric.startswith("price/")]
    if not rules:
        return []
    _check_length(policy, evidence, max_new_tokens)
    _check_samples(evidence)
    _check_budgets(rules, evidence)
    return [f"{_whose(evidence)} {text}" for text in (*_remarks(evidence), *_judged(rules, evidence))]


def _whose(evidence: Evidence) -> str:
    return f"the {shown(evidence.suite)} evidence of {evidence.created}"


def _check_length(policy: Policy, evidence: Evidence, max_new_tokens: int | None) -> None:
    from llmpatch.evals.suites import usual_length

    usual = usual_length(evidence.risk)
    wanted, told = max_new_tokens or usual, evidence.settings.max_new_tokens
    if usual is None or told == wanted or (told == usual and evidence.risk not in DECLINING):
        return  # a length that is named is one of answers: texts that are continued keep their suite's
    if told is None:
        raise UsageError(
            f"{_whose(evidence)} does not say how long its answers may be (decoding.max_new_tokens)", hint=_AFRESH
        )
    raise UsageError(
        f"{_whose(evidence)} is of answers of at most {told} tokens; the policy {policy.name} is about {wanted}",
        hint=f"{_AFRESH}; if answers of {told} tokens are what you mean, say `llmpatch gate --max-new-tokens {told}`",
    )


def _check_samples(evidence: Evidence) -> None:
    """Of suites that continue text: what is drawn, and how often, is theirs to say."""
    from llmpatch.evals.gender_bias import DRAWN
    from llmpatch.evals.toxicity import DECODING, SAMPLES

    told = evidence.settings.samples
    if evidence.risk == "toxicity":  # the worst of more is worse
        wanted, number = Decoding(temperature=DECODING.temperature, top_p=DECODING.top_p), SAMPLES
    elif evidence.risk == "gender-bias":  # a mean, of however many
        drawn = told is not None and told > 1
        wanted, number = Decoding(temperature=DRAWN.temperature, top_p=DRAWN.top_p) if drawn else Decoding(), told or 1
    else:
        return
    if told != number:
        raise UsageError(
            f"{_whose(evidence)} {'does not say of how many' if told is None else f'is of {told}'} continuations of each "
            f"prompt (decoding.samples); rules on {evidence.risk} are about {number}",
            hint=_AFRESH,
        )
    if evidence.decoding != wanted:
        raise UsageError(
            f"{_whose(evidence)} is of {evidence.decoding}; with {number} of each prompt, the suite {evidence.risk} "
            f"measures {wanted}",
            hint=_AFRESH,
        )


def _check_budgets(rules: Sequence[Rule], evidence: Evidence) -> None:
    """Of attacks that search: a weaker search finds less."""
    from llmpatch.attacks.registry import ATTACKS

    for name in dict.fromkeys(
        rule.set for rule in rules if evidence.risk == "attacks" and rule.set in evidence.tree["sets"]
    ):
        attack = ATTACKS.get(str(name))
        if attack is None or attack.budget is None:
            continue
        told, wanted = evidence.budgets.get(attack.name), (attack.budget.rounds, attack.budget.width)
        if told is None or any(one < other for one, other in zip(told, wanted, strict=True)):
            how = "does not say how far it searched" if told is None else "searched {} rounds of {}".format(*told)
            raise UsageError(
                f"the attack {attack.name} of {_whose(evidence)} {how}; the gate would search {wanted[0]} of {wanted[1]}",
                hint=_AFRESH,
            )


def _remarks(evidence: Evidence) -> Iterator[str]:
    settings = evidence.settings
    if evidence.suite != evidence.risk:
        yield f"was measured on own prompts, not on those of the suite {evidence.risk}"
    if settings.limit is not None:
        yield f"asked only the first {settings.limit} prompts of each set"
    if settings.within is not None:
        yield (
            f"asked prompts only until the intervals of each set were ± {settings.within:g}, so a kind weighs its sets by "
            "what was asked of them, not by their size"
        )
    if settings.seed:
        yield f"was drawn with seed {settings.seed} instead of 0"
    if evidence.risk == "gender-bias" and (settings.samples or 1) > 1:
        yield f"is of {settings.samples} drawn continuations of each prompt; measured now, it would be a greedy one"


def _judged(rules: Sequence[Rule], evidence: Evidence) -> list[str]:
    """Compare the builds of judges with those here: those that a rule reads must be the same."""
    from llmpatch.judges import JUDGES

    read, remarks = _judges_read(rules, evidence), []
    for name in dict.fromkeys([*sorted(read), *(judge.name for judge in evidence.judges)]):
        here, told = _build_here(name), [judge for judge in evidence.judges if judge.name == name]
        other = next((judge for judge in told if judge != here), None)
        if not told and (name in JUDGES or not isinstance(here, str)):
            raise UsageError(
                f"{_whose(evidence)} does not say which build of the judge {name} gave its scores", hint=_AFRESH
            )
        if isinstance(here, str):
            remarks.append(f"names the judge {shown(name)}, whose build cannot be compared: {here}")
        elif other:
            text = f"is by another build of the judge {name}: {_shown(other)}; here it is {_shown(here)}"
            if name in read:
                raise UsageError(f"{_whose(evidence)} {text}", hint=f"{_AFRESH}; or install what it was measured with")
            remarks.append(f"{text}; no rule reads it")
    return remarks


def _judges_read(rules: Iterable[Rule], evidence: Evidence) -> set[str]:
    """Judges whose scores decide a rule."""
    from llmpatch.evals.suites import RISK_JUDGES
    from llmpatch.judges import JUDGES

    listed = {judge.name for judge in evidence.judges}
    read: set[str] = set()
    for rule in rules:
        read |= {name for name in rule.metric.split("/") if name in {*listed, *JUDGES}}
        read |= {rule.judge} if rule.judge is not None else set()
        if rule.metric == "incoherent":
            read.add(COHERENT)
        if evidence.risk == "gender-bias" and rule.metric in ON_TOPIC:
            read.add(PHRASES)
        if rule.metric.startswith("closed/") and (usual := RISK_JUDGES.get(evidence.risk)):
            read.add(usual[0])
            if not evidence.judges or evidence.judges[0].name != usual[0]:
                raise UsageError(
                    f"{_whose(evidence)} has its share closed by another judge than {usual[0]}, which leads the suite",
                    hint=_AFRESH,
                )
    return read


def _build_here(name: str) -> JudgedBy | str:
    """The build of a judge in this installation, or why it has none; adapters to other models are not opened for it."""
    from llmpatch.judges import JUDGES, identity, open_judge

    if name not in JUDGES:
        return "it is none of this installation's own judges"
    try:
        found = identity(open_judge(name))
    except IntegrityError:
        raise
    except LlmpatchError as error:  # its package is not installed
        return str(error)
    return JudgedBy(name, found["version"], found["sha256"])


def _shown(judge: JudgedBy) -> str:
    return f"version {shown(judge.version, 40)}, sha256 {shown(judge.sha256[:16]) or 'none'}"
