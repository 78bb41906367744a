import pytest

from keras_practice.checks.trials.budget import Budget


class Clock:
    """Stands still unless it is moved on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def budget_of(seconds, tracing=0.0, call=0.0, step=0.0):
    """A budget, and a training that takes so long, the first time with tracing."""
    clock, left = Clock(), [tracing]

    def train(steps):
        clock.now += (left.pop() if left else 0.0) + call + steps * step

    return Budget(clock() + seconds, clock), train, clock


def test_a_step_is_timed_without_tracing_and_without_what_a_call_costs():
    budget, train, _ = budget_of(1_000, tracing=20.0, call=0.5, step=0.1)
    assert budget.affordable_steps(train, 300) == 300
    assert budget.step_seconds == pytest.approx(0.1)


def test_a_training_takes_a_share_of_the_time_that_is_left():
    budget, train, _ = budget_of(102.6, call=0.5, step=0.1)
    assert budget.affordable_steps(train, 3_000) == pytest.approx(300, abs=1)  # In 0.3 of 100 s.


def test_without_time_for_one_call_there_are_no_steps():
    budget, train, _ = budget_of(8.0, call=2.0, step=0.1)
    assert budget.affordable_steps(train, 300) == 0


def test_steps_are_affordable_until_the_deadline():
    budget, train, clock = budget_of(100.0, step=0.1)
    assert budget.time_for(10**6)  # Before it is known what a step takes.
    budget.affordable_steps(train, 300)
    clock.now = 190.0
    assert budget.time_for(99)
    assert not budget.time_for(101)
    assert budget.allows(10.0)
    assert not budget.allows(10.1)
    assert not budget.over
    clock.now = 200.1
    assert budget.over
    assert not budget.time_for(0)
