"""How often a search waits for the device, and what crosses, with and without working ahead.

Counted, not timed, with passes that cost nothing: whole searches, prompts included, in a loop that
joins users as for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

from adprior_bench.search.null_passes import NullPasses
from adprior_bench.search.synthetic import VOCABULARY
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.pass_loop import PassLoop, SharedPasses
from adprior_runtime.engines.working_ahead import WorkingAheadEngine
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchSettings
from adprior_runtime.search.tree import read_prompt


def count_traffic(
    trie: Trie, prompt: Sequence[int], settings: SearchSettings, users: int, top_k: int
) -> dict[str, float]:
    """Return counts a user; ``asked_`` is before those of an engine that does not work ahead."""
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

        PassLoop().run([search] * users)
        row |= {
            f"{prefix}waits": (passes.passes + passes.fetches) / users,
            f"{prefix}user_sent_bytes": passes.sent_bytes / users,
            f"{prefix}user_returned_bytes": passes.returned_bytes / users,
        }
    return row
