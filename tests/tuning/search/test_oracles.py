import hashlib

import keras_tuner
import numpy as np

from keras_practice.tuning.search.oracles import BayesianOracle, RandomOracle, derive_seed


def test_seeds_follow_from_their_parts_alone():
    assert derive_seed(1, "a") == int(hashlib.sha256(b"1/a").hexdigest()[:8], 16) // 2
    assert len({derive_seed(s, t) for s in range(20) for t in range(20)}) == 400
    assert all(0 <= derive_seed(s) < 2**31 for s in range(100))


def test_an_oracle_takes_trials_back(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("x", 0, 1)
    oracle = RandomOracle(keras_tuner.Objective("loss", "min"), 9, 1, hyperparameters=space)
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "search")
    first = oracle.create_trial("a")
    assert not oracle.claim("b", first.trial_id)  # It has not been given back.
    oracle.release("a")
    oracle.release("a")
    assert not oracle.claim("b", None)
    assert oracle.claim("b", first.trial_id)
    assert oracle.create_trial("b") is first
    oracle.release("b")
    assert oracle.create_trial("c") is first
    oracle.release("c")
    oracle.discard(first.trial_id)
    assert oracle.create_trial("d").trial_id == "1"


def test_a_bayesian_search_begins_as_the_random_one_and_learns(tmp_path):
    """The score depends on the learning rate alone, so that what is proposed can be judged."""

    def searched(folder):
        oracle = BayesianOracle(objective=keras_tuner.Objective("score", "max"), max_trials=11, seed=3)
        oracle._set_project_dir(str(folder), "search")
        oracle.hyperparameters.Float("x", 0.0, 1.0)
        drawn = []
        for number in range(11):
            trial = oracle.create_trial("tuner0")
            if number == 5:  # As a search that is killed and resumed.
                oracle.reload()
                trial = oracle.create_trial("tuner0")
            drawn.append(trial.hyperparameters.get("x"))
            oracle.update_trial(trial.trial_id, {"score": 1 - abs(drawn[-1] - 0.7) ** 2})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        return drawn

    drawn = searched(tmp_path / "a")
    assert len(drawn) == 11
    assert np.median(np.abs(np.array(drawn[6:]) - 0.7)) < 0.1
    assert max(np.abs(np.array(drawn[:3]) - 0.7)) > 0.1
