"""The training section of a recipe: stages, mix, losses, and what else a prefix is trained beside.

    TrainingSection(sft=StageSection(steps=250, learning_rate=0.03)).dpo.beta

A closed schema, of frozen values; :mod:`llmpatch.recipe` reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

HOTTEST = 5
Temperature = Annotated[float, Field(ge=0, le=HOTTEST)]  # 0 is greedy
TopP = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A frozen part of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StageSection(Section):
    """One stage of training. Answers are cut to ``answer_tokens``; a cut answer never teaches its end."""

    steps: Annotated[int, Field(ge=0)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    answer_tokens: Annotated[int, Field(ge=1)] = 24
    batch_size: Annotated[int, Field(ge=1)] = 16


class DPOSection(StageSection):
    """Direct preference optimisation (Rafailov et al. 2023).

    ``reference`` is the policy the implicit reward is measured from: the ``sft`` patch, the un-prefixed ``base``,
    ``reference`` = ``M'`` itself (Eq. 3 of arXiv 2511.08484; it needs ``reference.kind`` ``transformers``),
    or ``none``, a uniform one (CPO, Xu et al. 2024): then the pairs that are still decided wrongly pull hardest.
    ``sft_weight`` adds the chosen answer's negative log-likelihood per token.
    """

    beta: Annotated[float, Field(gt=0)] = 0.1
    reference: Literal["sft", "base", "reference", "none"] = "sft"
    sft_weight: Annotated[float, Field(ge=0)] = 0.0


class MixSection(Section):
    """Shares of each batch by kind. They need not sum to one; kinds without prompts get none."""

    harmful: Annotated[float, Field(gt=0)] = 0.5
    borderline: Annotated[float, Field(ge=0)] = 0.25
    everyday: Annotated[float, Field(ge=0)] = 0.25


class BalanceSection(Section):
    """Makes two groups of words equally likely right after a harmful prompt; ``gender``: he, his, ... and she, her, ..."""

    words: Literal["gender"] = "gender"
    weight: Annotated[float, Field(gt=0)] = 1.0


KL = Literal["forward", "reverse", "both"]


class KeepSection(Section):
    """Prompts on which something stays as it is: the files of each form, the first ``limit`` rows of each file.

    The reference's own answers to them are sampled once, greedily or at ``temperature`` and ``top_p``. ``weight`` weighs the
    KL divergence per token on them, of ``batch_size`` answers a step, cut to ``answer_tokens``; 0 turns it off. ``kl``:
    ``forward`` is KL(reference || prefix), which sees what the reference says and the prefix does not; ``reverse`` the other way
    round, which sees what the prefix says and the reference would not; ``both`` is their sum. ``balance``:
    after the ``raw`` ones, two groups of words are made equally likely as well, whatever stands around the prefix: what a
    neighbour was taught about single words is lost in a mean over tokens.
    """

    chat: list[str] = []
    raw: list[str] = []
    limit: Annotated[int, Field(ge=1)] | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 8
    answer_tokens: Annotated[int, Field(ge=1)] = 24
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    kl: KL = "forward"
    balance: BalanceSection | None = None

    @model_validator(mode="after")
    def _some_file(self) -> Self:
        if not (self.chat or self.raw):
            raise ValueError("it names no prompts: list files under chat or raw")
        if self.balance is not None and not (self.raw and self.weight):
            raise ValueError("balance is about raw prompts, beside a weight above 0: list files under raw")
        return self


class DistilSection(KeepSection):
    """Teaches the prefix what ``patches``, one or a stack in this order, do: KL(``M`` + patches || ``M`` + prefix).

    One section for each patch, on prompts of its risk, and one prefix carries them all. Without ``patches`` it is the base that
    is learnt from, and in steps with neighbours they are: where nothing should change. ``answers``: after whose words it is
    learnt, those of the ``patches`` themselves, of the un-prefixed ``base``, or of the ``start``, the rows that training goes
    on from: a prefix that goes wrong stands where its teacher never does, and learns there what the teacher would say next
    (Agarwal et al. 2024, arXiv 2306.13649).
    ``beside``: only in steps in which all its ``patches``, neighbours that are listed, stand around the trained rows: there each
    is to do what it does alone.
    """

    patches: Annotated[list[str], Field(max_length=16)] = []
    answers: Literal["patches", "base", "start"] = "patches"
    beside: bool = False

    @model_validator(mode="after")
    def _beside_somebody(self) -> Self:
        if self.beside and not self.patches:
            raise ValueError("beside is about patches: list those that stand around, or leave it out")
        return self


class NeighboursSection(Section):
    """Other patches around the trained rows in a share of the steps, so that the patch learns to live with them.

    ``patches``: published ones, by path, which stay as they are. ``random``: stand-ins of ``random_tokens`` vocabulary rows
    each, as loud as a patch, where there are none or too few. ``subsets``: some of them in a step, each number as often; else
    all. ``row_subsets``: only half or more of each one's rows. ``shuffle``: in random order, else as listed. ``place`` of the
    trained rows among them. ``kl_weight`` replaces ``training.kl_weight`` in steps with neighbours. ``keep``: prompts of other
    risks, on which KL(neighbours || neighbours + prefix) is kept small, and without neighbours KL(base || prefix).
    ``norm_budget``: the largest norm of a trained row, as a multiple of the 99.9th percentile of the base's embeddings.
    ``validate_together``: a checkpoint counts by the lower of its scores alone and behind all ``patches``. ``parallel``: all of
    them stand side by side, where none reads another (``place`` and ``shuffle`` say nothing then).
    """

    patches: Annotated[list[str], Field(max_length=15)] = []
    random: Annotated[int, Field(ge=0, le=8)] = 0
    random_tokens: Annotated[int, Field(ge=1, le=256)] = 50
    probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    subsets: bool = True
    row_subsets: bool = False
    shuffle: bool = True
    place: Literal["random", "first", "last"] = "random"
    kl_weight: Annotated[float, Field(ge=0)] | None = None
    keep: KeepSection | None = None
    norm_budget: Annotated[float, Field(gt=0, le=1000)] | None = None
    validate_together: bool = False
    parallel: bool = False

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.patches and not self.random:
            raise ValueError("there are no neighbours: list patches, or set random to 1 or more")
        if self.validate_together and not self.patches:
            raise ValueError("validate_together needs published patches: list them, or leave it out")
        return self


class TrainingSection(Section):
    """The optimiser and both stages.

    ``optimizer``: ``adamw``, or ``muon``, which moves all directions of the matrix of rows alike.
    ``kl_weight`` weighs KL(base || patched) per token on benign answers; ``benign_nll_weight`` the likelihood of those
    same answers, in SFT alone: in DPO they have ``dpo.sft_weight``, as all chosen answers do. Every ``validate_every`` steps
    the patched model answers the validation prompts, which gives the score
    ``refused harmful - borderline_cost * refused borderline - everyday_cost * refused everyday``; training stops after
    ``patience`` validations without a better one. ``keep``: the ``best`` prefix, of equally good ones the later; or the ``last``,
    where the score is as high as it gets and says no more. ``pairs_weight`` weighs all that is learnt from pairs; with 0 none are
    made, and the prefix learns from ``distil`` alone, in the steps of ``sft``.
    """

    sft: StageSection = StageSection(steps=300, learning_rate=0.01)
    dpo: DPOSection = DPOSection(steps=100, learning_rate=0.003)
    mix: MixSection = MixSection()
    kl_weight: Annotated[float, Field(ge=0)] = 1.0
    benign_nll_weight: Annotated[float, Field(ge=0)] = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    warmup: Annotated[int, Field(ge=0)] = 10
    validate_every: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 100
    keep: Literal["best", "last"] = "best"
    borderline_cost: Annotated[float, Field(ge=0)] = 0.5
    everyday_cost: Annotated[float, Field(ge=0)] = 2.0
    checkpoint_every: Annotated[int, Field(ge=1)] = 25
    pairs_weight: Annotated[float, Field(ge=0)] = 1.0
    neighbours: NeighboursSection | None = None
    distil: Annotated[list[DistilSection], Field(max_length=16)] = []

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.pairs_weight and not any(part.weight for part in self.distil):
            raise ValueError("pairs_weight is 0 and nothing is distilled: there is nothing to learn")
        if not self.pairs_weight and not self.sft.steps:
            raise ValueError(
                "pairs_weight is 0 and so is sft.steps, which counts the steps without pairs: nothing is learnt"
            )
        alone = any(part.weight and not part.beside for part in self.distil)
        if not self.pairs_weight and not alone and self.neighbours and not self.neighbours.probability:
            raise ValueError(
                "pairs_weight and neighbours.probability are 0, and all that is distilled is beside: nothing is learnt"
            )
        return self

    @model_validator(mode="after")
    def _beside_neighbours(self) -> Self:
        there = self.neighbours.patches if self.neighbours else []
        if strangers := [path for part in self.distil if part.beside for path in part.patches if path not in there]:
            raise ValueError(f"distil.beside: {strangers[0]} is not among neighbours.patches")
        if self.neighbours and self.neighbours.row_subsets and any(part.beside for part in self.distil):
            raise ValueError("distil.beside is about whole patches: leave neighbours.row_subsets out")
        return self
