"""python scripts/promote_model.py: put a version into production, on trial, or take it back; show all that was done."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlops import bootstrap, caller, settings
from mlops.errors import BadInput, MlopsError
from mlops.journaling.ledger import Done
from mlops.releasing.releases import Releases
from mlops.settings import Platform
from mlops.traffic import Mode, Traffic

ROOT = Path(__file__).parents[1]
REFUSED, WIDE = 3, 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one act; return 0, 3 for a version that the gate refused, or 1 after one line that says what is wrong."""
    words = _parser().parse_args(arguments)
    try:
        return _run(words)
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(words: argparse.Namespace) -> int:
    file = ROOT / "modules" / words.module / "config" / "config.yaml"
    platform = settings.section(Platform, "platform", words.config or file, words.profile, os.environ)
    connected = bootstrap.connect(platform)
    releases = Releases(words.module, connected.ledger, lambda: connected.registry)
    if words.history:
        _show(releases)
        return 0
    if words.at is not None:
        print(_said(connected.ledger.traffic(words.module, _micro(words.at))))
        return 0
    if words.back:
        releases.back(_who(words), words.why or "by hand")
    elif words.version is not None:
        if not _passed(releases, words):
            return REFUSED
        releases.promote(words.version, _who(words), words.why or "passed the gate")
    else:
        mode, version = next((mode, number) for mode, number in _trials(words).items() if number is not None)
        releases.trial(version, mode, 0.0 if mode == "shadow" else words.weight, _who(words), words.why or "by hand")
    print(_said(releases.traffic))
    return 0


def _passed(releases: Releases, words: argparse.Namespace) -> bool:
    """Whether the gate lets a version in, or a person with a name and a reason forces it."""
    now = releases.traffic
    if words.force:
        if not (words.who and words.why):
            raise BadInput("--force needs a name and a reason: --who NAME --why TEXT")
        return True
    if now is None or words.version == now.production:
        return True
    judged = releases.done("judged", words.version)
    if judged is not None and judged.act.figures.get("against") == now.production:
        if not judged.act.figures["passed"]:
            print(f"version {words.version} refused: {judged.act.why}", file=sys.stderr)
        return bool(judged.act.figures["passed"])
    command = [sys.executable, "-m", f"modules.{words.module}", "gate", "--version", str(words.version)]
    options = ["--profile", words.profile, "--who", _who(words), *(["--config", words.config] if words.config else [])]
    return (
        subprocess.run([*command, *map(str, options)], cwd=Path.cwd(), env=_environment(), check=False).returncode == 0
    )


def _who(words: argparse.Namespace) -> str:
    """Who the ledger says it was: the name that was given, or the account's."""
    return words.who or caller.name()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def _trials(words: argparse.Namespace) -> dict[Mode, int | None]:
    return {"canary": words.canary, "shadow": words.shadow, "ab": words.ab}


def _show(releases: Releases) -> None:
    """Print every act, and check the chain."""
    table = Table(title=f"{releases.name}: what was done", title_justify="left")
    for heading in ("", "when (UTC)", "what", "version", "who", "why", "from", "to"):
        table.add_column(heading, overflow="fold")
    for done in releases.ledger.acts(releases.name):
        table.add_row(*_row(done))
    console = Console()
    # What is no terminal takes whole lines.
    Console(width=None if console.is_terminal else WIDE).print(table)
    head = releases.ledger.verify()
    print(f"{head.count:,} rows, each as it was written; the last has hash {head.hash.hex()}")


def _micro(moment: datetime) -> int:
    """A time as microseconds since 1970; without an offset it is UTC."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _row(done: Done) -> list[str]:
    act, when = done.act, datetime.fromtimestamp(done.at / 1e6, UTC)
    version = "" if act.version is None else str(act.version)
    moved = ["", ""] if act.before == act.after else [_said(act.before), _said(act.after)]
    return [str(done.number), f"{when:%Y-%m-%d %H:%M:%S}", act.act, version, act.who, act.why, *moved]


def _said(traffic: Traffic | None) -> str:
    if traffic is None:
        return "nothing"
    said = f"{traffic.production} in production"
    if traffic.candidate is None:
        return said
    share = f" on {traffic.weight:.0%}" if traffic.answering is not None else ""
    return f"{said}, {traffic.candidate} as {traffic.mode}{share}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True, help="the folder in modules/, such as fraud_detection")
    act = parser.add_mutually_exclusive_group(required=True)
    act.add_argument("--version", type=int, help="put this version into production, if the gate lets it")
    act.add_argument("--canary", type=int, help="let this version answer a share, judged by the watch")
    act.add_argument("--ab", type=int, help="let this version answer a share until it is ended by hand")
    act.add_argument("--shadow", type=int, help="let this version watch")
    act.add_argument("--back", action="store_true", help="end the trial that runs, or go back to the previous version")
    act.add_argument("--history", action="store_true", help="show every act, and check that none was changed")
    act.add_argument("--at", type=datetime.fromisoformat, help="say who answered at this time (UTC)")
    parser.add_argument("--weight", type=float, default=0.05, help="the share of entities, from 0 to 1")
    parser.add_argument("--force", action="store_true", help="past the gate; needs --who and --why")
    parser.add_argument("--who", default="", help="your name, or else the account's; stands in the ledger")
    parser.add_argument("--why", default="", help="the reason; stands in the ledger")
    parser.add_argument("--config", type=Path, help="a YAML file instead of the module's config/config.yaml")
    parser.add_argument("--profile", default=os.environ.get("PROFILE", "local"), help="local or aws")
    return parser


if __name__ == "__main__":
    sys.exit(main())
