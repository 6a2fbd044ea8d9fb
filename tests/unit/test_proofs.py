"""The frame that proofs run in: a proof that is short, skips, raises or measures nothing has failed."""

from __future__ import annotations

import argparse
from importlib import import_module
from types import SimpleNamespace

import pytest

from scripts.proofs.report import Report
from scripts.proofs.samples import Sample, floors, medians, slope

runner = import_module("scripts.proofs.__main__")


def test_a_report_within_all_its_limits_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("idle")
    assert report.figure("workers", 20, at_least=20, at_most=20)
    assert report.figure("CPU", 0.4, "%", at_most=1)
    assert report.figure("for information", 123456.0)
    assert report.ok
    line = capsys.readouterr().out.splitlines()[1]
    assert " ".join(line.split()) == "workers 20 >= 20 and <= 20 ok"


@pytest.mark.parametrize(("value", "at_least", "at_most"), [(1, 2, None), (3, None, 2), (float("nan"), 0, None)])
def test_one_figure_beyond_its_limit_makes_it_short(
    value: float, at_least: float | None, at_most: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("idle")
    report.figure("fine", 1, at_least=1)
    assert not report.figure("not fine", value, at_least=at_least, at_most=at_most)
    assert not report.ok
    assert capsys.readouterr().out.splitlines()[2].endswith("SHORT")


def test_a_report_without_a_limited_figure_is_not_ok() -> None:
    report = Report("idle")
    report.figure("for information", 1)
    report.note("nothing was promised")
    assert not report.ok


def test_a_skip_is_a_failure() -> None:
    report = Report("idle")
    report.figure("fine", 1, at_least=1)
    report.skip("memory, no cgroup here")
    assert not report.ok


def _held(scale: float) -> Report:
    report = Report("held")
    report.figure("scale", scale, at_least=0)
    return report


def _skips(scale: float) -> Report:
    pytest.skip("not here")


def _exits(scale: float) -> Report:
    raise SystemExit(0)


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"held": _held, "not_here": _skips, "exits": _exits}
    monkeypatch.setattr(runner, "names", lambda: sorted(name.replace("_", "-") for name in modules))
    monkeypatch.setattr(
        runner.importlib,
        "import_module",
        lambda name: SimpleNamespace(prove=modules[name.removeprefix("scripts.proofs.")]),
    )


def test_a_proof_may_have_arguments_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(scale: float, seeds: int = 0) -> Report:
        report = Report("held")
        report.figure("seeds", seeds, at_least=5)
        return report

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seeds", type=int)

    module = SimpleNamespace(prove=prove, add_arguments=add_arguments)
    monkeypatch.setattr(runner, "names", lambda: ["held"])
    monkeypatch.setattr(runner.importlib, "import_module", lambda name: module)
    assert runner.main(["held", "--seeds", "7"]) == 0
    assert runner.main(["held", "--seeds", "4"]) == 1
    for wrong in (["held", "--other", "1"], ["all", "--seeds", "7"]):
        with pytest.raises(SystemExit):
            runner.main(wrong)


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize(("name", "code"), [("held", 0), ("not-here", 1), ("exits", 1), ("all", 1)])
def test_the_exit_code_says_whether_it_held(name: str, code: int) -> None:
    assert runner.main([name, "--scale", "0.1"]) == code


@pytest.mark.usefixtures("proofs")
@pytest.mark.parametrize("arguments", [["unknown"], ["held", "--scale", "0"], ["held", "--scale", "nan"]])
def test_a_usage_error_is_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        runner.main(arguments)
    assert stopped.value.code == 2


def test_the_report_is_not_taken_for_a_proof() -> None:
    assert "report" not in runner.names()


def test_a_slope_is_that_of_the_line_with_its_error() -> None:
    exact = slope([(0.0, 10.0), (1800.0, 11.0), (3600.0, 12.0)])
    assert exact == pytest.approx((2.0, 0.0))
    # by hand: residuals 1, -2, 1 about the mean of a flat line; 6 / (3 - 2) / 0.5, and the root of it
    assert slope([(0.0, 2.0), (1800.0, -1.0), (3600.0, 2.0)]) == pytest.approx((0.0, 12**0.5))
    assert slope([(0.0, 1.0), (1.0, 2.0)]).per_h != slope([(0.0, 1.0), (1.0, 2.0)]).per_h  # NaN: within no limit


def test_medians_are_moved_by_neither_end() -> None:
    samples = [Sample(float(at), 1, memory, 0, 0, 0.0) for at, memory in enumerate((4, 900, 4, 5, 0, 7, 6, 7))]
    assert medians(samples, 5.0, lambda each: each.memory_mb) == [(2.5, 4), (7.5, 7)]


def test_floors_leave_out_what_comes_and_goes() -> None:
    samples = [Sample(at, 1, memory_mb, 0, 0, 0.0) for at, memory_mb in [(0, 5), (3, 4), (9, 90), (10, 50), (19, 6)]]
    assert floors(samples, 10.0, lambda each: each.memory_mb) == [(5.0, 4), (15.0, 6)]
