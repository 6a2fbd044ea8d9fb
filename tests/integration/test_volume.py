"""Much at once: many tasks, large ones, several clients. Every result is the right one."""

from __future__ import annotations

import threading
from concurrent.futures import Future, as_completed

from poolmgr import Client
from scripts.proofs.pool import Pool

LARGE = 20_000_000  # bytes


def test_ten_thousand_calls_and_every_result_is_right(client: Client) -> None:
    numbers = range(10_000)
    assert list(client.map("add", numbers, numbers)) == [2 * number for number in numbers]


def test_ten_thousand_durable_submits_and_every_result_is_right(client: Client) -> None:
    futures = [client.submit("add", number, number) for number in range(10_000)]
    assert [future.result(timeout=30) for future in futures] == [2 * number for number in range(10_000)]


def test_futures_complete_in_any_order(client: Client) -> None:
    calls = client.using(durable=False)
    futures: dict[Future[int], int] = {calls.submit("add", number): number for number in range(500)}
    for future in as_completed(futures, timeout=20):
        assert future.result() == futures.pop(future)
    assert not futures


def test_huge_arguments_and_results(client: Client) -> None:
    value = bytes(range(256)) * (LARGE // 256)
    assert client.run("size_of", value) == len(value)
    assert client.run("zeros", LARGE) == bytes(LARGE)
    assert client.run("echo", value) == value
    durable = client.submit("echo", value)
    assert durable.result(timeout=20) == value
    assert client.result(durable.id) == value


def test_small_tasks_pass_by_huge_ones(client: Client) -> None:
    huge = [client.using(durable=False).submit("zeros", LARGE) for _ in range(4)]
    assert list(client.map("add", range(1000), range(1000))) == list(range(0, 2000, 2))
    assert [len(future.result(timeout=20)) for future in huge] == [LARGE] * 4


def test_several_clients_at_once_get_their_own_results(shared_pool: Pool) -> None:
    wrong: list[int] = []

    def use(offset: int) -> None:
        with shared_pool.client() as client:
            found = list(client.map("add", range(2000), [offset] * 2000))
            if found != list(range(offset, offset + 2000)):
                wrong.append(offset)

    threads = [threading.Thread(target=use, args=(offset,)) for offset in (0, 10_000, 20_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_one_client_is_good_for_many_threads(client: Client) -> None:
    wrong: list[int] = []

    def use(offset: int) -> None:
        wrong.extend(number for number in range(100) if client.run("add", number, offset) != number + offset)

    threads = [threading.Thread(target=use, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
