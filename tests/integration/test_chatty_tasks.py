"""Tasks that print or log without end: they cost the log some lines, and the others nothing."""

from __future__ import annotations

import pytest

from poolmgr import Client
from poolmgr.manager.budget import LINES
from scripts.proofs.pool import Pool, until


def logged(pool: Pool, text: str) -> int:
    return pool.log.read_text().count(text)


@pytest.mark.parametrize(
    ("handler", "mark"), [("print_without_end", "stdout| x"), ("log_without_end", "error| and again")]
)
def test_one_without_end_is_logged_within_a_budget(lone: Client, lone_pool: Pool, handler: str, mark: str) -> None:
    before = logged(lone_pool, mark)
    future = lone.using(timeout_s=None, max_retries=0).submit(handler)
    until(lambda: logged(lone_pool, mark) - before >= LINES, "the budget is spent")
    cpu = lone.worker("worker-0")
    assert cpu.state == "busy"
    assert lone.metrics()["tasks"]["running"] == 1  # the daemon answers
    assert lone.cancel(future.id, kill=True)
    until(lambda: "lines suppressed" in lone_pool.log.read_text(), "it is told how many were not logged")
    assert logged(lone_pool, mark) - before <= 2 * LINES
    until(lambda: lone.worker("worker-0").state == "ready")


def test_the_end_of_what_was_suppressed_is_kept_all_the_same(lone: Client) -> None:
    future = lone.using(max_retries=0, timeout_s=0.5).submit("print_without_end")
    until(future.done)
    [attempt] = lone.task(future.id).attempts
    assert attempt.post_mortem is not None
    assert attempt.post_mortem.output.endswith("x\nx\n")
    assert len(attempt.post_mortem.output) > 2 * LINES
    lone.purge()


def test_a_lot_of_output_in_one_go_is_no_trouble(lone: Client) -> None:
    assert lone.using(max_retries=0, timeout_s=20).run("print_lines", 100_000) is None
