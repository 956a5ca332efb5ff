"""`raylora submit`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from raylora.cli._output import add_json, add_spec, answer
from raylora.errors import UserError

HELP = "run a spec as a job on a Ray cluster, or through Slurm"

# Options that mean something for Slurm alone, and what they are where they are not given.
_OF_SLURM = {"nodes": 1, "sbatch": "", "script": None, "dry_run": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--address", metavar="URL", help="of a Ray cluster, for example http://head:8265")
    where.add_argument("--slurm", action="store_true", help="as a batch job: through sbatch on this machine")
    parser.add_argument(
        "--working-dir", default=".", metavar="DIR", help="travels to the Ray cluster, or where Slurm runs it (.)"
    )
    parser.add_argument("--no-wait", action="store_true", help="return once the Ray cluster has taken the job")
    slurm = parser.add_argument_group("with --slurm")
    slurm.add_argument("--nodes", type=int, default=1, metavar="N", help="share the spec's hosts (default: 1)")
    slurm.add_argument(
        "--sbatch", default="", metavar="OPTIONS", help="of sbatch: --sbatch='--partition=a100 --time=12:00:00'"
    )
    slurm.add_argument("--script", metavar="FILE", help="a batch script of your own (default: of clusters/slurm/)")
    slurm.add_argument("--dry-run", action="store_true", help="print the command that would submit it, and stop")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.slurm:
        return _through_slurm(options)
    from clusters.submit import submit

    for name, default in _OF_SLURM.items():
        if getattr(options, name) != default:
            flag = f"--{name.replace('_', '-')}"
            raise UserError.at(flag, "goes with --slurm, not with --address", value=getattr(options, name))
    done = submit(
        options.spec,
        options.overrides,
        address=options.address,
        working_dir=options.working_dir,
        follow=not options.no_wait,
        # The job's own output is no part of an answer in JSON.
        write=sys.stderr.write if options.json == "-" else sys.stdout.write,
    )
    answer(options, vars(done), lambda: None)
    return 0 if done.state in ("succeeded", "pending") else 1


def _through_slurm(options: argparse.Namespace) -> int:
    from clusters.sbatch import batch_command, share, split_options, submit_batch
    from raylora.spec import load

    # A mistake is told now, not when the queue has come to the job.
    asked = load(options.spec, options.overrides).resources
    if asked.hosts == "auto":
        raise UserError.at(
            "resources.hosts", "'auto': Slurm has to be told what a job takes; set it to a number", value="auto"
        )
    command = batch_command(
        ["tune", str(Path(options.spec).expanduser().resolve()), *options.overrides],
        nodes=options.nodes,
        needs=share(
            asked.hosts,
            nodes=max(options.nodes, 1),
            workers=asked.workers,
            cpus_per_host=asked.cpus_per_host,
            gpus_per_host=asked.gpus_per_host,
        ),
        working_dir=options.working_dir,
        options=split_options(options.sbatch),
        script=options.script,
    )
    if options.dry_run:
        answer(options, {"command": command}, lambda: print(shlex.join(command)))
        return 0
    done = submit_batch(command)
    told = f"{done.job} {done.state}; `squeue --job {done.job}` tells its state, slurm-{done.job}.out has its output"
    answer(options, vars(done), lambda: print(told))
    return int(done.state == "failed")
