from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np

from adprior_build.data.event_log import UserHistory
from adprior_build.training.interest_windows import interest_window
from adprior_runtime.prompt.context import Event, parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate
from support.tokens import END, USER, piece_tokenizer

TEMPLATE = PromptTemplate(
    terminator=END,
    max_prompt_tokens=60,
    head=(USER,),
    event=("{advertiser}{end}", "in {category_words}|"),
    tail=("+{gap}|",),
    interest_tail=("kind: ",),
)
RENDERER = PromptRenderer(TEMPLATE, piece_tokenizer(["Acme", "Kite"], 300, ["dog food", "tea"]))
START = datetime(2024, 5, 1, 9, tzinfo=UTC)


def test_a_category_follows_the_prompt_that_is_served_before_its_day() -> None:
    events = tuple(
        Event(time=START + timedelta(days=day), action="visit", advertiser=name, category=category)
        for day, name, category in ((0, "Acme", "TEA"), (3, "Kite", "TEA"), (3, "Acme", "DOG_FOOD"))
    )
    user = UserHistory(user_id="a", profile={}, events=events)
    window = interest_window(RENDERER, user, 2)
    event = {"time": "2024-05-01", "action": "visit", "advertiser": "Acme", "category": "TEA"}
    served = json.dumps({"as_of": "2024-05-04", "history": [event]}).encode()
    prompt = RENDERER.render(parse_context(served)).token_ids
    name = RENDERER.name_ids("dog food")
    expected = [*prompt, *RENDERER.interest_tail_ids, *name]
    assert window.token_ids.tolist() == expected
    assert window.token_ids[window.targets].tolist() == name
    assert window.targets[-1] == len(expected) - 1
    assert (window.names, window.new_names, bool(np.all(window.is_new))) == (1, 1, True)
    assert interest_window(RENDERER, user, 1).new_names == 0
