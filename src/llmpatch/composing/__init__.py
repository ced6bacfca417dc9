"""Stacks of patches: put together in an order, measured as what they are, and written as one patch.

    patch = compose(["patches/smollm2/refusal", "patches/smollm2/toxicity"], Path("both"), run=Path("runs/both"))
    matrix = search_orders(Bench(base, open_tasks(patches)), make_stack(patches))      # which order is best, or that none is

Rows of several patches go one after another; what they do together is not the sum of what each does alone, so nothing is
written that was not measured. docs/composition.md explains it. Knows nothing about stores and what is active.
"""

from llmpatch.composing.measures import Column, Task, measure, open_tasks, risks_of
from llmpatch.composing.retention import KEPT, make_figures
from llmpatch.composing.search import order_table, search_orders
from llmpatch.composing.stack import Stack, make_stack, stack_prefix
from llmpatch.composing.surveying import added_table, figures_table, survey_one, survey_set, survey_table
from llmpatch.composing.together import Bench, losses_in_words, measure_together
from llmpatch.composing.writing import Naming, compose, look
from llmpatch.prefix import check_room

__all__ = [
    "KEPT",
    "Bench",
    "Column",
    "Naming",
    "Stack",
    "Task",
    "added_table",
    "check_room",
    "compose",
    "figures_table",
    "look",
    "losses_in_words",
    "make_figures",
    "make_stack",
    "measure",
    "measure_together",
    "open_tasks",
    "order_table",
    "risks_of",
    "search_orders",
    "stack_prefix",
    "survey_one",
    "survey_set",
    "survey_table",
]
