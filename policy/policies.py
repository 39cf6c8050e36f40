"""Policies by name: a shipped network, a rule, or an ONNX file, behind one interface.

A network file carries everything it needs: the scaler inside the graph, and in its metadata the observation it was
trained on, the features with units and believed ranges, the action names and where it comes from.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from policy.catalogue import REFERENCE, SHIPPED, check_deployable
from policy.history import Decider, Floats, History
from policy.observation.follow import Follower
from policy.observation.multistream import features_of
from policy.observation.paper import Feature, observe
from shared.contracts import Action
from shared.errors import InvalidInputError, MetricsError, ModelError

#: the tuned rule that decides where a network has nothing to go by
FALLBACK: Final = "rule"
#: a service that is neglected for long is not seen in training, and what a network does then is anybody's guess: once
#: quality worth so many retrains is lost since the model was new, the rule decides
NEGLECT: Final = "log_regret_over_cost"
PATIENCE: Final = 20.0
#: key of the one JSON document in a network's metadata
METADATA_KEY: Final = "opportune"


class OutOfDistributionError(MetricsError):
    """The observation is nothing the policy was trained on."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy makes of a history. A rule is certain of everything."""

    action: Action
    probabilities: tuple[float, float, float]


class Policy(Decider, Protocol):
    """A decider that also says how sure it is, and which bytes it is made of."""

    sha256: str

    def evaluate(self, history: History, allowed: tuple[bool, bool] = (True, True)) -> Evaluation:
        """The best action on the allowed clouds (AWS, Azure).

        Raises:
            OutOfDistributionError: the policy cannot judge this history.
            MetricsError: part of the observation is missing.
        """
        ...


class RulePolicy:
    """A rule of `policy.rules`. It picks the cheapest cloud; where that one is not allowed, the other."""

    def __init__(self, name: str, rule: Decider) -> None:
        self.name = name
        self.sha256 = hashlib.sha256(f"rule:{name}".encode()).hexdigest()
        self._rule = rule

    def reset(self, seed: int) -> None:
        """Forget everything."""
        self._rule.reset(seed)

    def decide(self, history: History) -> int:
        """The rule's action."""
        return self._rule.decide(history)

    def evaluate(self, history: History, allowed: tuple[bool, bool] = (True, True)) -> Evaluation:
        """The rule's action, with certainty."""
        action = self.decide(history)
        if action and not allowed[action - 1]:
            action = 3 - action if allowed[2 - action] else 0
        certain = [0.0, 0.0, 0.0]
        certain[action] = 1.0
        return Evaluation(Action(action), (certain[0], certain[1], certain[2]))


class NetworkPolicy:
    """A trained network in one ONNX file: the most probable action, never a sample."""

    def __init__(self, path: Path, name: str) -> None:
        import onnxruntime

        self.name = name
        self._follower = Follower()
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise InvalidInputError(f"policy {path}: cannot be read: {exc.strerror}") from exc
        self.sha256 = hashlib.sha256(content).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.metadata: dict[str, Any] = json.loads(
                self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "null")
            )
            self.observation = str(self.metadata["observation"])
            self.features = tuple(Feature(f["name"], f["unit"], f["low"], f["high"]) for f in self.metadata["features"])
        except (TypeError, KeyError, ValueError) as exc:
            raise ModelError(f"policy {path}: not a policy that `opportune train` wrote (metadata: {exc!r})") from exc
        except Exception as exc:
            # ONNX Runtime's own exceptions share no base class but Exception
            if type(exc).__module__.startswith("onnxruntime"):
                raise ModelError(f"policy {path}: not a usable ONNX file: {str(exc).splitlines()[0]}") from exc
            raise
        low, high = np.array([f.low for f in self.features]), np.array([f.high for f in self.features])
        margin = 0.5 * (high - low)
        self._least, self._most = low - margin, high + margin
        for index, feature in enumerate(self.features):
            if feature.name == NEGLECT:
                self._most[index] = math.log(PATIENCE)
        if self.observation not in ("paper", "multistream"):
            raise ModelError(f"policy {path}: unknown observation {self.observation!r}; upgrade this program")
        made_for = [f.name for f in self.features]
        given = [f.name for f in features_of(self.observation)]
        if made_for != given:
            odd = next((a or b for a, b in zip_longest(made_for, given) if a != b), None)
            raise ModelError(
                f"policy {path}: made for {len(made_for)} features, not for the {len(given)} of this version "
                f"(first difference: {odd}); make it again with `opportune train`"
            )

    def reset(self, seed: int) -> None:
        """The action is a function of the history; what is forgotten is only how far it was followed."""
        self._follower = Follower()

    def observe(self, history: History) -> Floats:
        """The network's input for a history, shape (D,)."""
        return observe(history) if self.observation == "paper" else self.follow(history)[0]

    def follow(self, *histories: History) -> Floats:
        """The multi-stream observations of histories that share their retrains, (N, D)."""
        return self._follower.follow(*histories)

    def decide(self, history: History) -> int:
        """The most probable action, hold while a job is in flight; the fall-back rule's where the network is lost."""
        if history.in_flight:
            return 0
        try:
            return int(self.evaluate(history).action)
        except OutOfDistributionError:
            return int(by_rule(history).action)

    def evaluate(self, history: History, allowed: tuple[bool, bool] = (True, True)) -> Evaluation:
        """The most probable action; a retrain on a cloud that is not allowed goes to the other one."""
        return self.judge(self.observe(history), allowed)

    def judge(self, observed: Floats, allowed: tuple[bool, bool] = (True, True)) -> Evaluation:
        """As `evaluate`, of an observation (D,)."""
        chances = self.probabilities(observed)
        for cloud in (1, 2):
            if not allowed[cloud - 1]:
                chances[3 - cloud if any(allowed) else 0] += chances[cloud]
                chances[cloud] = 0.0
        hold, aws, azure = (float(chance) for chance in chances)
        return Evaluation(Action(int(np.argmax(chances))), (hold, aws, azure))

    def probabilities(self, observed: Floats) -> NDArray[np.float64]:
        """Action probabilities of one observation, shape (D,) -> (3,).

        Raises:
            InvalidInputError: wrong length.
            MetricsError: an entry is missing (NaN); the message names it.
            OutOfDistributionError: an entry is far outside its believed range; the message names it.
        """
        observed = np.asarray(observed, dtype=np.float64)
        if observed.shape != self._least.shape:
            raise InvalidInputError(
                f"policy {self.name}: observation of shape {observed.shape}, expected {self._least.shape}"
            )
        if np.isnan(observed).any():
            feature = self.features[int(np.argmax(np.isnan(observed)))]
            raise MetricsError(f"{feature.name} is missing from the observation")
        outside = self.outside(observed)
        if outside.any():
            index = int(np.argmax(outside))
            feature = self.features[index]
            raise OutOfDistributionError(
                f"{feature.name} is {observed[index]:.4g} {feature.unit}, "
                f"outside the {self._least[index]:.4g} to {self._most[index]:.4g} that policy {self.name} knows"
                + (f": quality worth more than {PATIENCE:g} retrains is lost" if feature.name == NEGLECT else "")
            )
        chances: NDArray[np.float64] = self.probabilities_of(observed[None])[0]
        return chances

    def outside(self, observed: Floats) -> NDArray[np.bool_]:
        """Which entries of observations (..., D) are far outside what their feature is believed to be, or neglect."""
        outside: NDArray[np.bool_] = (observed < self._least) | (observed > self._most)
        return outside

    def probabilities_of(self, observed: Floats) -> NDArray[np.float64]:
        """Action probabilities of many observations, unchecked, shape (N, D) -> (N, 3)."""
        (out,) = self._session.run(["probabilities"], {"observation": observed.astype(np.float32)})
        return np.asarray(out, dtype=np.float64)

    def most_probable(self, observed: Floats) -> NDArray[np.int64]:
        """The action of each of many observations, unchecked, shape (N, D) -> (N,)."""
        return np.asarray(self.probabilities_of(observed).argmax(axis=1))


def load_policy(name: str, **parameters: Any) -> Policy:
    """The policy of that name: a network, a rule of `policy.rules.registry`, or the path of an .onnx file.

    `parameters` go to a rule (for example `every_slots` of `static`).

    Raises:
        InvalidInputError: no such policy or file.
        ModelError: the file is not a policy.
    """
    networks = SHIPPED | REFERENCE
    if name in networks:
        return NetworkPolicy(networks[name], name)
    check_deployable(name)
    if name.endswith(".onnx"):
        return NetworkPolicy(Path(name), Path(name).stem)
    from policy.rules.registry import make

    return RulePolicy(name, make(name, **parameters))


def by_rule(history: History, allowed: tuple[bool, bool] = (True, True)) -> Evaluation:
    """What the fall-back rule makes of a history that a network cannot judge."""
    return load_policy(FALLBACK).evaluate(history, allowed)


def live_policy(name: str, static_every_slots: int) -> Policy:
    """The policy that a live service is set to.

    Raises:
        InvalidInputError: no function can run it.
        ModelError: the file is not a policy.
    """
    check_deployable(name)
    return load_policy(name, every_slots=static_every_slots) if name == "static" else load_policy(name)
