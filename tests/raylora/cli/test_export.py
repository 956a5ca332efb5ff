from __future__ import annotations


def test_adapter_is_copied_and_its_folder_told(workplace, tmp_path, answer) -> None:
    told = answer("export", workplace / "runs" / "sums", "--to", tmp_path / "adapter")
    assert told == {"folder": str(tmp_path / "adapter"), "merged": False}
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


def test_run_without_adapter_is_one_line(workplace, tmp_path, mistake) -> None:
    assert "has no adapter" in mistake("export", workplace / "runs" / "again", "--to", tmp_path / "adapter")


def test_folder_that_is_full_is_one_line(workplace, mistake) -> None:
    assert "--to" in mistake("export", workplace / "runs" / "sums", "--to", workplace)
