"""The command line `edge-wm`: nouns are groups (`bundle verify`), daily work a bare verb (`run`).

Results go to stdout, talk to stderr. Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused (a
signature, a limit, or a document that does not fit). What a user can mend is one line on stderr,
never a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

# Before numpy is loaded: its matrices here are small, and a pool of threads that waits in a busy
# loop takes the processors from the ticks.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

import edge_wm
from edge_wm.cli.bench import bench
from edge_wm.cli.bundle import app as bundle_app
from edge_wm.cli.contract import app as contract_app
from edge_wm.cli.deploy import app as deploy_app
from edge_wm.cli.doctor import doctor
from edge_wm.cli.evaluate import evaluate
from edge_wm.cli.explain import explain
from edge_wm.cli.firmware import app as firmware_app
from edge_wm.cli.flash import app as flash_app
from edge_wm.cli.hil import hil
from edge_wm.cli.importing import import_
from edge_wm.cli.latency import latency
from edge_wm.cli.link import app as link_app
from edge_wm.cli.quantize import quantize
from edge_wm.cli.replay import replay
from edge_wm.cli.report import report
from edge_wm.cli.robot import app as robot_app
from edge_wm.cli.run import run
from edge_wm.cli.servos import servos
from edge_wm.cli.zoo import zoo
from edge_wm.errors import EdgeWmError

app = typer.Typer(
    name="edge-wm",
    help="Run a learned world model on a real robot.",
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("eval")(evaluate)
app.command("bench")(bench)
app.command("zoo")(zoo)
app.command("replay")(replay)
app.command("report")(report)
app.command("latency")(latency)
app.command("quantize")(quantize)
app.command("import")(import_)
app.add_typer(contract_app, name="contract")
app.add_typer(robot_app, name="robot")
app.add_typer(bundle_app, name="bundle")
app.add_typer(deploy_app, name="deploy")
app.add_typer(link_app, name="link")
app.add_typer(flash_app, name="flash")
app.add_typer(firmware_app, name="firmware")
app.command("hil")(hil)
app.command("servos")(servos)
app.command("explain")(explain)
app.command("doctor")(doctor)


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the version."""
    typer.echo(json.dumps({"version": edge_wm.__version__}) if as_json else edge_wm.__version__)


def main() -> None:
    """Entry point: run the command line, turn our errors into one line and an exit code."""
    try:
        app()
    except EdgeWmError as error:
        print(f"edge-wm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`edge-wm eval | head`): that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
