from __future__ import annotations

from raylora.reports.page.tables import curve_table, front_table, progress_table


def test_the_table_of_progress_has_each_new_best_and_nothing_else() -> None:
    rows = [
        {"run": "a", "count": count, "minutes": count / 2, "best": best, "recipe": f"recipe {count}", "better": better}
        for count, best, better in [(1, 0.25, True), (2, 0.25, False), (3, 0.5, True)]
    ]
    assert progress_table(rows)["rows"] == [
        ["a", "1", "0.5", "0.25", "recipe 1"],
        ["a", "3", "1.5", "0.5", "recipe 3"],
    ]


def test_a_front_is_listed_from_the_cheapest_on() -> None:
    dear = {"run": "a", "seconds": 20.0, "value": 0.5, "recipe": "dear", "front_seconds": True}
    cheap = {"run": "a", "seconds": 10.0, "value": 0.25, "recipe": "cheap", "front_seconds": True}
    beaten = {"run": "a", "seconds": 15.0, "value": 0.125, "recipe": "beaten"}
    assert [row[-1] for row in front_table([dear, cheap, beaten])["rows"]] == ["cheap", "dear"]


def test_a_trial_with_one_report_has_no_curve() -> None:
    def report(key: str, samples: int, loss: float) -> dict[str, object]:
        return {"key": key, "run": "a", "trial": key, "recipe": f"of {key}", "samples": samples, "loss": loss}

    curves = [report("1", 8, 2.0), report("2", 8, 1.5), report("2", 16, 1.25)]
    found = curve_table(curves)
    assert found is not None and found["rows"] == [["a", "2", "of 2", "8: 1.5, 16: 1.25"]]
    assert curve_table(curves[:1]) is None
