"""Whole searches: the host's time, the waits for the device and the bytes copied.

They are measured with and without a first step ahead (`adprior_runtime.engines.working_ahead`).
Passes cost nothing; prompts are included, and users share passes in a loop as for a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from adprior_bench.search.null_passes import NullPasses
from adprior_bench.search.synthetic import VOCABULARY
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.pass_loop import PassLoop, SharedPasses
from adprior_runtime.engines.working_ahead import WorkingAheadEngine
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt


def measure_traffic(
    trie: Trie,
    prompt: Sequence[int],
    settings: SearchSettings,
    users: int,
    top_k: int,
    loop: PassLoop,
) -> dict[str, float]:
    """Return figures a user.

    Args:
        trie: The catalogue's names.
        prompt: Token ids, the same for all users.
        settings: How to search.
        users: How many share passes.
        top_k: How many advertisers each wants.
        loop: Joins the passes.

    Returns:
        ``waits`` for the device, ``user_sent_bytes``, ``user_returned_bytes``, and
        ``user_host_us``, the processor time of the host without that of the passes. Those of an
        engine that does not work ahead begin with ``asked_``.
    """
    row: dict[str, float] = {}
    for prefix, works_ahead in (("asked_", False), ("", True)):
        passes = NullPasses()
        engine = WorkingAheadEngine(
            SharedPasses(passes),
            vocabulary=VOCABULARY,
            max_positions=len(prompt) + 1,
            works_ahead=works_ahead,
        )
        passes.user = 0
        passes.reset()

        def search(engine: WorkingAheadEngine = engine) -> None:
            prefilled = read_prompt(engine, trie, prompt, settings.width)
            TrieSearch(engine, trie, prefilled, settings).run(top_k)

        start = time.thread_time()
        loop.run([search] * users)
        host = time.thread_time() - start - passes.seconds
        row |= {
            f"{prefix}waits": (passes.passes + passes.fetches) / users,
            f"{prefix}user_host_us": 1e6 * host / users,
            f"{prefix}user_sent_bytes": passes.sent_bytes / users,
            f"{prefix}user_returned_bytes": passes.returned_bytes / users,
        }
    return row
