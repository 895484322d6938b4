from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from adprior_build.provenance import describe_command


def test_a_command_is_spelt_with_the_names_of_its_files() -> None:
    options = Namespace(
        bundle=Path("/somewhere/else/bundle"), catalogue=None, beam_width=8, json=False, quiet=True
    )
    assert (
        describe_command("build", options) == "adprior build --bundle bundle --beam-width 8 --quiet"
    )


def test_what_changes_nothing_is_left_out_and_spaces_are_quoted() -> None:
    options = Namespace(events=Path("my events.csv"), threads=2)
    assert describe_command("train", options, leave_out={"threads"}) == (
        "adprior train --events 'my events.csv'"
    )
