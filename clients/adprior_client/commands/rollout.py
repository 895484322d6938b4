"""``adprior rollout``: move users to a new bundle step by step, and back if it is worse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from adprior_client.rollout.edits import Edits, roll_back
from adprior_client.rollout.metrics_page import Group, MetricsPage
from adprior_client.rollout.options import (
    add_rollout_arguments,
    page_url,
    read_limits,
    read_metrics,
    read_pace,
    read_urls,
)
from adprior_client.rollout.outcomes import OutcomeLog
from adprior_client.rollout.report import format_step
from adprior_client.rollout.steps import Outcome, Runner, Step
from adprior_client.rollout.switch import Rollout, State, Switch, TakenOverError
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """examples:
  adprior rollout --servers /etc/adprior/servers --stable node-1:8001 --canary node-1:8011
  adprior rollout --servers /etc/adprior/servers --status
  adprior rollout --servers /etc/adprior/servers --rollback

exit codes: 0 promoted; 2 bad input; 3 rolled back, a rule is broken or a server of the canary
is lost; 4 rolled back, the rules did not decide; 5 somebody else changed the file, which stays"""

_CODES: Final = {Outcome.PASSED: 0, Outcome.BROKEN: 3, Outcome.UNDECIDED: 4}
_TAKEN_OVER: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    add_rollout_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the rollout, or show or end it; return the exit code."""
    switch = Switch(args.servers)
    if args.status:
        return _show_status(switch, as_json=args.json)
    if args.rollback:
        return _roll_back(switch, as_json=args.json)
    text = switch.read_text()
    rollout, is_over = _begin(args, switch, text)
    if is_over:
        _print_state(rollout, [], as_json=args.json)
        return 0 if rollout.state is State.PROMOTED else _CODES[Outcome.BROKEN]
    steps: list[Step] = []

    def show(step: Step) -> None:
        steps.append(step)
        if not args.json:
            print(format_step(step), flush=True)

    runner = _make_runner(args, switch, rollout, show)
    try:
        rollout, outcome = runner.run(rollout, text)
    except TakenOverError as error:
        print(f"adprior rollout: {error}", file=sys.stderr)
        if args.json:
            ended = {"state": "taken over", "reason": str(error)}
            print(to_json({**ended, "steps": [step.to_json() for step in steps]}, indent=2))
        return _TAKEN_OVER
    except KeyboardInterrupt:
        print(f"{args.servers}: run again to continue, or with --rollback", file=sys.stderr)
        raise
    _print_state(rollout, steps, as_json=args.json)
    return _CODES[outcome]


def _make_runner(
    args: argparse.Namespace, switch: Switch, rollout: Rollout, show: Callable[[Step], None]
) -> Runner:
    """Check the options and the servers; a rollout that continues finds lost servers itself."""
    pace, limits, metrics = read_pace(args), read_limits(args), read_metrics(args.metrics)
    log = None if args.log is None else OutcomeLog(args.log)
    stable, canary = (
        Group(name, [MetricsPage(page_url(url, metrics)) for url in urls])
        for name, urls in (("stable", rollout.stable), ("canary", rollout.canary))
    )
    if not rollout.share:
        bundles = f"bundle {stable.begin()} is stable, bundle {canary.begin()} is the canary"
        if not args.json:
            print(f"{bundles}\n", flush=True)
    return Runner(switch, stable, canary, limits, pace, show, log=log)


def _begin(args: argparse.Namespace, switch: Switch, text: str) -> tuple[Rollout, bool]:
    """Return the rollout to run, and whether it is over already."""
    found, listed = switch.read(text)
    given = {name: read_urls(name, getattr(args, name)) for name in ("stable", "canary")}
    is_same = found is not None and all(
        urls is None or set(urls) == set(getattr(found, name)) for name, urls in given.items()
    )
    if found is not None and found.state is State.RUNNING and not is_same:
        raise InvalidInputError(
            f"{switch.path}: a rollout to {', '.join(found.canary)} from {', '.join(found.stable)} "
            "is running; continue it with the same servers, or end it with --rollback"
        )
    if found is not None and is_same:
        if found.state is State.ROLLED_BACK and args.again:
            return Rollout(state=State.RUNNING, stable=found.stable, canary=found.canary), False
        return found, found.state is not State.RUNNING
    stable, canary = given["stable"], given["canary"]
    if canary is None:
        raise InvalidInputError("--canary: missing; expected the servers of the new bundle")
    if stable is None:
        if any(address.canary_share is not None for address in listed):
            raise InvalidInputError(f"{switch.path}: lists canaries; give --stable")
        stable = tuple(address.url for address in listed)
    if not stable:
        raise InvalidInputError(f"{switch.path}: lists no server; give --stable")
    if both := set(stable) & set(canary):
        raise InvalidInputError(f"--canary: {min(both)} is a stable server")
    return Rollout(state=State.RUNNING, stable=stable, canary=canary), False


def _show_status(switch: Switch, *, as_json: bool) -> int:
    text = switch.read_text()
    rollout = switch.read_stated(text)
    if rollout is not None:
        edits = Edits.find(rollout, text)
        _print_state(rollout, [], as_json=as_json, edits=edits)
        return 0
    _, listed = switch.read(text)
    if as_json:
        print(to_json({"state": None, "servers": [address.line for address in listed]}, indent=2))
    else:
        print(f"no rollout; {len(listed)} servers")
    return 0


def _roll_back(switch: Switch, *, as_json: bool) -> int:
    text = switch.read_text()
    rollout = switch.read_stated(text)
    if rollout is None:
        raise InvalidInputError(f"{switch.path}: states no rollout")
    edits = Edits.find(rollout, text)
    if rollout.state is not State.ROLLED_BACK or edits.changes:
        rollout = roll_back(rollout, edits)
        switch.write(rollout, expected=text)
    _print_state(rollout, [], as_json=as_json)
    return 0


def _print_state(
    rollout: Rollout, steps: Sequence[Step], *, as_json: bool, edits: Edits | None = None
) -> None:
    listed = edits.listed if edits else rollout.addresses()
    servers = [address.line for address in listed]
    changes = edits.changes if edits else ()
    if as_json:
        document = {
            "state": str(rollout.state),
            "share": rollout.share,
            "since": rollout.since,
            "reason": rollout.reason,
            "stable": rollout.stable,
            "canary": rollout.canary,
            "servers": servers,
            "changes": changes,
            "steps": [step.to_json() for step in steps],
        }
        print(to_json(document, indent=2))
    else:
        edited = f"{edits.describe()}\n" if edits and changes else ""
        print(f"{rollout.describe()}\n{edited}servers: {', '.join(servers)}")
