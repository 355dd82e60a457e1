import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from aefeatures import DenseNetwork, Sparse
from aefeatures._torch.random_state import (
    RandomState,
    global_seed,
    is_ours,
    random_state_for,
    seed_beside,
    unaffected,
    without_autocast,
)
from aefeatures._train.thread import TrainingThread

CPU = torch.device("cpu")


def own(*_):
    pass


class OwnSparse(Sparse):
    pass


@pytest.mark.parametrize(
    ("part", "expected"),
    [("mse", True), (DenseNetwork(), True), (own, False), (OwnSparse(), False)],
    ids=["name", "object", "function", "subclass"],
)
def test_what_is_ours_borrows_nothing(part, expected):
    assert is_ours(part) is expected
    assert (random_state_for(["bce", part], 0, CPU).states == []) is expected
    before = torch.get_rng_state()
    with global_seed(3, "bce", part):
        assert torch.equal(torch.get_rng_state(), before) is expected


def test_a_state_goes_on_from_use_to_use_and_puts_the_callers_back():
    state = random_state_for([own], 5, CPU)
    before = torch.get_rng_state()
    numbers = []
    for _ in range(2):
        with state.borrowed():
            numbers.append(torch.randn(7))
        assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(5)
    for drawn in numbers:
        assert torch.equal(drawn, torch.randn(7, generator=generator))


@pytest.mark.parametrize(
    "make", [global_seed, lambda seed: random_state_for([own], seed, CPU).borrowed()]
)
def test_an_error_leaves_the_callers_state(make):
    before = torch.get_rng_state()

    @make(3)
    def fail():
        torch.rand(3)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_take_turns_and_borrow_within_what_they_borrowed():
    def draw(seed):
        with global_seed(seed):
            first = torch.rand(2000)
            with global_seed(99):
                torch.rand(2000)
            return torch.cat([first, torch.rand(2000)])

    with ThreadPoolExecutor(4) as pool:
        for seed, drawn in enumerate(pool.map(draw, range(20))):
            assert torch.equal(
                drawn, torch.rand(4000, generator=torch.Generator().manual_seed(seed))
            )


def test_a_training_thread_borrows_what_its_caller_has_borrowed():
    def draw():
        with global_seed(1):
            return torch.rand(1)

    done = []

    def outer():
        with global_seed(0), TrainingThread(0) as thread:
            done.append(thread.run(draw))

    other = threading.Thread(target=outer, daemon=True)
    other.start()
    other.join(20)
    assert done == [torch.rand(1, generator=torch.Generator().manual_seed(1))]


def test_a_seed_beside_a_generator_leaves_it_where_it_is():
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    seeds = {seed_beside(rng, 0), seed_beside(rng, 1)}
    assert len(seeds) == 2
    assert seed_beside(same, 0) in seeds
    assert rng.bit_generator.state == same.bit_generator.state
    rng.random()
    assert seed_beside(rng, 0) not in seeds


def test_a_state_can_be_seeded_again():
    state = RandomState(3, [torch.default_generator])
    first = state.states[0].clone()
    with state.borrowed():
        torch.rand(1)
    assert not torch.equal(state.states[0], first)
    state.manual_seed(3)
    assert torch.equal(state.states[0], first)


def test_autocast_of_the_caller_is_off_within_and_on_after():
    a = torch.rand(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for off in (without_autocast(), unaffected(0), unaffected(0, own)):
            with off:
                assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16
