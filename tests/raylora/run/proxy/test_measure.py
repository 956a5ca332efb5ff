"""Parts, recipes and folders of measurements, and one that is killed; a whole one is in `cli/test_proxy.py`."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from raylora.errors import UserError
from raylora.run.proxy.measure import draw, parts_of
from raylora.run.proxy.record import Part, measurement_folder
from raylora.spec import load
from searchers.space import Space
from trainables.journal import Journal


def test_parts_end_with_the_largest_which_all_are_compared_with() -> None:
    assert parts_of([1, 0.1, 0.5], ["tsds", "random"]) == [
        *(Part(name, fraction) for fraction in (0.1, 0.5) for name in ("tsds", "random")),
        Part("random", 1),
    ]


@pytest.mark.parametrize(
    ("fractions", "selectors", "told"),
    [
        ([0.1, 1.5], ["random"], "--fractions: 0.1,1.5; allowed: above 0, at most 1"),
        ([1, 1], ["random"], "--fractions: 1,1; allowed: at least two, such as 0.1,1"),
        ([0.1, 1], ["randm"], "--select: 'randm': no such selector; did you mean 'random'"),
        ([0.1, 1], [], "--select: none; allowed: random, tsds, length, loss"),
    ],
)
def test_what_cannot_be_measured_is_refused(fractions, selectors, told) -> None:
    with pytest.raises(UserError) as caught:
        parts_of(fractions, selectors)
    assert str(caught.value).startswith(told)


def test_more_recipes_include_the_fewer() -> None:
    space = Space.from_dict({"rank": [1, 2, 4, 8], "dropout": [0.0, 0.1]})
    few, many = draw(space, 3, seed=5), draw(space, 6, seed=5)
    assert many[:3] == few and draw(space, 6, seed=5, known=few) == many
    assert len(draw(space, 99, seed=5)) == 8 and draw(space, 3, seed=6) != few


def test_a_measurement_is_of_a_spec_whatever_its_proxy_search_and_hosts(write_spec) -> None:
    file = write_spec()
    same = measurement_folder(load(file))
    assert measurement_folder(load(file, ["task.proxy=0.2", "search.trials=7", "resources.hosts=2"])) == same
    for change in ("seed=1", "train.epochs=2", "space.rank=[2]", "task.validation_rows=9", "search.objective=loss"):
        assert measurement_folder(load(file, [change])) != same, change


@pytest.mark.real
def test_a_killed_measurement_goes_on_where_it_was(write_spec, start_raylora, tmp_path) -> None:
    file = write_spec(task__metrics=["loss"])
    arguments = ["proxy", file, "--fractions", "0.2,1", "--recipes", "4"]
    killed = start_raylora(*arguments)
    deadline = time.monotonic() + 120
    while not (part := next((tmp_path / "runs").glob("proxy-*/random-0.2"), None)) or len(Journal(part).started()) < 2:
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()[0]
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    over = set(Journal(part).concluded())
    again = start_raylora(*arguments, "--quiet", "--json", tmp_path / "figures.json")
    told, _ = again.communicate(timeout=240)
    assert again.returncode == 0, told
    rows = Journal(part).rows()
    starts = [row["key"] for row in rows if row["event"] in ("start", "continue")]
    assert len(over) >= 1 and all(starts.count(key) == 1 for key in over)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["proxies"][0]["recipes"] == 4
