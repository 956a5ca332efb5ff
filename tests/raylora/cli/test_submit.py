from __future__ import annotations

import json

import pytest

from clusters.submit import Submitted
from raylora.cli import main

COMMAND = ["submit", "spec.yaml", "search.trials=2", "--address", "http://head:8265"]


@pytest.fixture
def ends(monkeypatch):
    """`ends(state)`: the next job says a word and ends so; gives what it was submitted with."""

    def ends(state: str) -> dict:
        given = {}

        def submit(spec, overrides, *, write, **options) -> Submitted:
            write("hello\n")
            given.update(options, spec=spec, overrides=overrides)
            return Submitted("job-1", options["address"], state)

        monkeypatch.setattr("clusters.submit.submit", submit)
        return given

    return ends


@pytest.mark.parametrize(("state", "status"), [("succeeded", 0), ("failed", 1), ("stopped", 1), ("running", 1)])
def test_status_of_the_job_is_the_commands(state, status, ends, capsys) -> None:
    given = ends(state)
    assert main(COMMAND) == status
    assert given == {
        "spec": "spec.yaml", "overrides": ["search.trials=2"], "address": "http://head:8265", "working_dir": ".",
        "follow": True,
    }  # fmt: skip
    assert capsys.readouterr().out == "hello\n"


def test_a_program_is_told_the_job_and_nothing_else_and_need_not_wait(ends, capsys) -> None:
    given = ends("pending")
    assert main([*COMMAND, "--no-wait", "--json"]) == 0 and not given["follow"]
    told = capsys.readouterr()
    assert json.loads(told.out) == {"job": "job-1", "address": "http://head:8265", "state": "pending"}
    assert told.err == "hello\n"


def test_missing_spec_is_one_line(tmp_path, mistake) -> None:
    arguments = ["submit", tmp_path / "none.yaml", "--address", "http://localhost:1", "--working-dir", tmp_path]
    assert "no such file" in mistake(*arguments)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("model: smollm2-135m\ntask: {name: gsm8k}\nresources: {hosts: 4, gpus_per_host: 1.0}\n")
    return path


def test_slurm_is_asked_for_what_the_spec_needs(spec, answer, tmp_path) -> None:
    options = ["--slurm", "--nodes=2", "--sbatch=--partition=a100", "--working-dir", tmp_path, "--dry-run"]
    command = answer("submit", spec, "search.trials=2", *options)["command"]
    assert command[0] == "sbatch" and {"--nodes=2", "--cpus-per-task=3", "--gpus-per-node=2"} <= set(command)
    assert f"--chdir={tmp_path}" in command and "--partition=a100" in command
    assert command[-4].endswith("cluster.sbatch") and command[-3:] == ["tune", str(spec), "search.trials=2"]


def test_the_command_for_slurm_is_printed_as_a_shell_reads_it(spec, table) -> None:
    told = table("submit", spec, "--slurm", "--sbatch=--comment='two words' --time=1:00:00", "--dry-run")
    assert told.startswith("sbatch --parsable --nodes=1 ") and " '--comment=two words' --time=1:00:00 " in told


def test_a_job_of_slurm_is_told_by_its_number(spec, answer, monkeypatch) -> None:
    given = []

    def submit_batch(command) -> Submitted:
        given.extend(command)
        return Submitted("4711", "slurm", "pending")

    monkeypatch.setattr("clusters.sbatch.submit_batch", submit_batch)
    assert answer("submit", spec, "--slurm") == {"job": "4711", "address": "slurm", "state": "pending"}
    assert given[-2:] == ["tune", str(spec)]


def test_a_mistake_in_the_spec_is_told_before_the_queue_has_come_to_it(spec, mistake) -> None:
    assert "search.trails = 2: no such key" in mistake("submit", spec, "search.trails=2", "--slurm")


@pytest.mark.parametrize("option", ["--nodes=2", "--sbatch=--wait", "--script=own.sbatch", "--dry-run"])
def test_an_option_for_slurm_is_refused_with_an_address(option, mistake) -> None:
    told = mistake("submit", "spec.yaml", "--address", "http://head:8265", option)
    assert told.startswith(option.split("=")[0] + ": goes with --slurm")
