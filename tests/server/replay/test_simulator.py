"""The simulator runs the server's own objects: what comes out is what these decide."""

import numpy as np
import pytest
from made_up import MS, small_table

from server.admission import Limiter
from server.controller import Controller
from server.front import unseen
from server.replay.report import Outcome, summarise
from server.replay.simulator import simulate
from server.replay.traces import Trace, gamma
from server.tenants import Tenant


def controller(policy: str = "pace", slo: float = 50 * MS) -> Controller:
    return Controller(small_table(), max_batch=8, slo=slo, policy=policy)


def at(*times: float) -> Trace:
    return Trace("by hand", np.array(times), max(times) + 1)


def test_a_request_alone_takes_what_its_stitch_takes() -> None:
    made = controller()
    (outcome,) = simulate(at(3.0), made, Limiter(10, made))
    assert (outcome.stitch, outcome.top1, outcome.status) == (3, 0.8, "200")
    assert outcome.latency == pytest.approx(4 * MS)
    assert outcome.in_time


def test_who_comes_while_a_batch_runs_waits_for_it() -> None:
    made = controller("fixed:3")
    first, second, third = simulate(at(0.0, 0.001, 0.002), made, Limiter(10, made))
    assert first.latency == pytest.approx(4 * MS)
    assert second.latency == pytest.approx(11 * MS)
    assert third.latency == pytest.approx(10 * MS)


def test_what_would_be_late_is_refused_and_worth_nothing() -> None:
    made = controller(slo=10.01 * MS)
    limiter = Limiter(1000, made)
    outcomes = simulate(at(*[0.0] * 40), made, limiter)
    refused = [outcome for outcome in outcomes if outcome.latency is None]
    assert len(outcomes) == 40
    assert len(refused) == 30, "ten fit in 10 ms at the cheapest stitch"
    assert {outcome.status for outcome in refused} == {"503"}
    assert all(outcome.in_time for outcome in outcomes if outcome.latency is not None)
    assert (limiter.inside, limiter.floor) == (0, 0.0), "every permit came back"


def test_noise_makes_batches_longer_and_is_learned() -> None:
    made = controller()
    simulate(
        Trace("gamma", gamma(100, 5.0, np.random.default_rng(0), cv2=1), 5.0), made, Limiter(10, made), lambda: 1.5
    )
    assert made.drift.center == pytest.approx(1.5, rel=0.01)


def test_the_same_trace_and_noise_give_the_same_outcomes() -> None:
    def once() -> list[object]:
        made, noise = controller(), np.random.default_rng(1)
        trace = Trace("gamma", gamma(700, 3.0, np.random.default_rng(2), cv2=8), 3.0)
        return list(simulate(trace, made, Limiter(99, made), lambda: noise.uniform(0.7, 1.5)))

    assert once() == once()


def test_our_policy_loses_fewer_and_is_worth_more_than_slackfit_in_a_burst() -> None:
    trace = Trace("gamma", gamma(750, 10.0, np.random.default_rng(5), cv2=8), 10.0)
    worth, met = {}, {}
    for policy in ("pace", "slackfit", "cheapest"):
        made = controller(policy, slo=80 * MS)
        outcomes = simulate(trace, made, Limiter(1000, made))
        summary = summarise(outcomes, trace.seconds)
        worth[policy], met[policy] = summary.effective or 0.0, summary.attainment
    assert worth["pace"] > worth["cheapest"]
    assert worth["pace"] > worth["slackfit"]
    assert met["pace"] >= met["slackfit"]


def test_what_stands_before_the_engine_costs_time_but_does_not_hide_it() -> None:
    made, front = controller(), 4 * MS  # the cheapest stitch answers four times as many
    trace = gamma(100, 10.0, np.random.default_rng(5), cv2=8)
    outcomes = simulate(Trace("bursts", trace, 10.0), made, Limiter(100, made), front=front)
    answered = [outcome for outcome in outcomes if outcome.latency is not None]
    assert min(outcome.latency or 0 for outcome in answered) > front
    most = made.slo - unseen(made.slo)
    assert max(outcome.latency or 0 for outcome in answered) <= most, "the way to the client takes time too"
    free = simulate(Trace("bursts", trace, 10.0), controller(), Limiter(100, controller()))
    assert len(answered) < len([outcome for outcome in free if outcome.latency is not None])
    starts = sorted(outcome.arrival + (outcome.latency or 0) for outcome in answered)
    assert len(starts) <= (starts[-1] - starts[0]) / front + 2, "one after the other"


def test_on_one_core_what_stands_before_the_engine_takes_its_time() -> None:
    trace = Trace("one, then ten", np.array([0.0, *[1.0] * 10]), 2.0)

    def latencies(*, one_core: bool) -> list[float]:
        made = controller("cheapest")
        outcomes = simulate(trace, made, Limiter(100, made), front=2 * MS, one_core=one_core)
        return [outcome.latency or 0.0 for outcome in outcomes]

    apart, shared = latencies(one_core=False), latencies(one_core=True)
    assert shared[0] == apart[0], "nothing is done there while its batch runs"
    assert shared[1] == pytest.approx(apart[1] + (apart[1] - 2 * MS)), "half of the core while the others come"
    assert shared[-1] == pytest.approx(apart[-1]), "nobody comes behind the last"


SHOP, LAB, BIG = Tenant("shop"), Tenant("lab"), Tenant("big", 3.0)


def flood(steady: float, whose: Tenant = LAB) -> tuple[Trace, list[Tenant]]:
    """The shop sends five times what the server can do for five seconds, another one a steady part of it for seven.

    The server does 1000 a second at the cheapest stitch.
    """
    burst = gamma(5000, 5.0, np.random.default_rng(1), cv2=4) + 1.0
    others = gamma(1000 * steady, 7.0, np.random.default_rng(2), cv2=1)
    times = np.concatenate([burst, others])
    order = np.argsort(times, kind="stable")
    return Trace("flood", times[order], 7.0), [SHOP if index < len(burst) else whose for index in order]


def in_time(trace: Trace, tenants: list[Tenant], noise: float, *, told: bool) -> dict[str, float]:
    """The share of each tenant's requests that are answered in time; `told`: whose they are is known."""
    made, generator = controller(), np.random.default_rng(3)
    factor = lambda: generator.uniform(1 - noise, 1 + noise)  # noqa: E731
    outcomes = simulate(trace, made, Limiter(256, made), factor, tenants if told else None)
    kept: dict[str, list[Outcome]] = {}
    for tenant, outcome in zip(tenants, outcomes, strict=True):
        kept.setdefault(tenant.name, []).append(outcome)
    return {name: sum(outcome.in_time for outcome in each) / len(each) for name, each in kept.items()}


@pytest.mark.parametrize(("steady", "whose", "noise", "at_least"), [(0.3, LAB, 0.0, 0.97), (0.6, BIG, 0.4, 0.88)])
def test_whoever_floods_pays_for_it_and_not_those_within_their_share(
    steady: float, whose: Tenant, noise: float, at_least: float
) -> None:
    trace, tenants = flood(steady, whose)
    blind, fair = (in_time(trace, tenants, noise, told=told) for told in (False, True))
    assert blind[whose.name] < 0.6
    assert fair[whose.name] > at_least
    left = (1 - steady) * 5 / 25  # of its five seconds' five times as many as can be done
    assert 0.8 * left < fair["shop"] <= blind["shop"], "what the others leave is its own"
