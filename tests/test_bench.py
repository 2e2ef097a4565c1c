"""How the bench evaluates its samples. `.ci/run` runs the short bench itself."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from bench.__main__ import rows, verdict
from bench.deployments import Run
from bench.report import COLOURS, picture, table
from bench.rows import LAUNCH, ROWS, Line


def test_the_result_is_the_ratio_of_the_medians() -> None:
    line = Line(LAUNCH, "s", 0.33, [2.0, 3.0, 9.0], [9.0, 10.0, 30.0])
    assert (line.result, line.met) == (0.3, True)
    expected = "| launch to SUCCESS, s | 3.0 (2.0-9.0) | 10.0 (9.0-30.0) | 0.30 | <= 0.33 |"
    assert table([line]).splitlines()[-1] == expected


def test_the_picture_shows_the_medians_of_the_phases(tmp_path: Path) -> None:
    phases = [dict.fromkeys(COLOURS, seconds) for seconds in (1.0, 2.0, 9.0)]
    runs = [Run(total=0, phases=each, own_cpu=0, all_cpu=0) for each in phases]
    figure = picture({"ours": runs, "baseline": runs[:1]})
    figure.savefig(tmp_path / "launch.svg")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["2.0", "1.0"] * len(COLOURS) + ["8.0 s", "4.0 s"]


def test_a_quantile_is_of_all_samples() -> None:
    line = Line("schedule", "s", 4, [float(second) for second in range(1, 21)], quantile=0.95)
    assert (line.result, line.met) == (20.0, False)
    assert "**<= 4 s: missed**" in table([line])


@pytest.mark.parametrize(("ours", "status"), [(5.9, 0), (6.1, 1)])
def test_the_short_bench_fails_on_a_slow_launch(ours: float, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict([Line(LAUNCH, "s", 0.33, [ours], [10.0]), Line("another", "s", 0.1, [1.0], [1.0])]) == status
    assert ("0.61 of the baseline, above 0.6" in capsys.readouterr().err) == bool(status)


def test_rows_are_measured_in_their_order_and_bad_names_are_named() -> None:
    assert rows("launch,up") == ["up", "launch"]
    with pytest.raises(ArgumentTypeError, match=f"no such row: lunch; there are {', '.join(ROWS)}"):
        rows("launch,lunch")
