"""Training for certificates: the loss of the worst case that bounds allow."""

from typing import Any

import keras
from keras import ops

from robust_zoo.attacks import FixedBudgetAttack
from robust_zoo.certification import (
    Graph,
    Interval,
    Monotone,
    Propagated,
    box,
    graph,
    margins,
    parts_of,
    propagate,
)
from robust_zoo.defenses.batch import Batch, integer_labels
from robust_zoo.defenses.tools import Mean, check_count, check_number
from robust_zoo.defenses.trainer import Defense
from robust_zoo.typing import Tensor

_LEAST = 1e-6  # radius while epsilon is 0, for the regularisers
_WANTED = 0.5  # tau of Shi et al.


@keras.saving.register_keras_serializable("robust_zoo")
class IntervalBoundTraining(Defense):
    """Minimises the loss at the worst logits that interval bounds allow in the ball (Gowal et al., arXiv:1810.12715).

    k * loss(clean) + (1 - k) * loss(worst), where the worst logits are 0 for the true class and, for another one, minus
    the lower bound of its margin, with the last layers merged into it. `robust_zoo.certify` then certifies what was
    trained. Batch normalisation has the statistics of the clean images, also for their bounds.

    Epsilon is 0 for the first steps, rises, and stays. With `regularization` two terms are added until then (Shi et al.,
    arXiv:2103.17268, section 3.3): one keeps intervals from widening, one keeps ReLUs on both sides of 0. Unlike theirs
    they are of each example by itself, so that nothing depends on how a batch is split. From `initialise_for_bounds`,
    with batch normalisation and these, a tenth of the epochs suffices.

    The logs hold "certified_accuracy": of the training epsilon's present value, in validation of its last one.

    Args:
        classifier: see `Defense`; of layers with an interval rule.
        epsilon: radius of the linf ball in [0, 1] pixel units, > 0; a little more than is to be certified.
        clean_weight: k at the end, in [0, 1]; default 0, as Shi et al.; Gowal et al. take 0.5.
        falling: whether k falls from 1 as epsilon rises (default), or is `clean_weight` as soon as epsilon is above 0.
        warmup_steps: updates with epsilon 0 and k 1, >= 0; default 0.
        ramp_steps: updates over which epsilon rises, >= 0; default 0.
        smooth: whether it rises smoothly (default): with the fourth power for a quarter of them, then on a straight line;
            False is a line.
        regularization: weight of the two terms while epsilon is 0, >= 0, from where it falls to 0 as epsilon rises;
            default 0, Shi et al. take 0.5.
        attack: that robust accuracy is measured with in every step, at its cost; None (default) measures none.
        attack_mode, seed: see `Defense`.

    Raises:
        NoRuleError: a layer without an interval rule.
    """

    trains_on_clean = True
    trains_on_adversarial = False

    def __init__(
        self,
        classifier: keras.Model,
        *,
        epsilon: float,
        clean_weight: float = 0.0,
        falling: bool = True,
        warmup_steps: int = 0,
        ramp_steps: int = 0,
        smooth: bool = True,
        regularization: float = 0.0,
        attack: FixedBudgetAttack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(classifier, attack=attack, **kwargs)
        for call in graph(classifier).calls:
            parts_of(call.layer)  # refuses it now rather than inside a compiled step
        self.epsilon = check_number("epsilon", epsilon, above=0)
        self.clean_weight = check_number("clean_weight", clean_weight, least=0, most=1)
        self.falling, self.smooth = bool(falling), bool(smooth)
        self.warmup_steps = check_count("warmup_steps", warmup_steps, least=0)
        self.ramp_steps = check_count("ramp_steps", ramp_steps, least=0)
        self.regularization = check_number("regularization", regularization, least=0)
        self.certified_accuracy = keras.metrics.Mean(name="certified_accuracy")
        self._mean = Mean()

    def _share(self, training: bool) -> Tensor:
        """Of epsilon that is trained with now."""
        if not training:
            return ops.convert_to_tensor(1.0)
        step = ops.cast(self.optimizer.iterations, "float32") - self.warmup_steps
        if not self.ramp_steps:
            return ops.cast(step >= 0, "float32")
        done = ops.clip(step / self.ramp_steps, 0.0, 1.0)
        if not self.smooth:
            return done
        # The slopes are equal where the power ends and the line begins, at a quarter.
        quarter, power = 0.25, 4
        height = quarter / (power * (1 - quarter) + quarter)
        early = height * (done / quarter) ** power
        return ops.where(
            done < quarter, early, height + (done - quarter) / (1 - quarter) * (1 - height)
        )

    def prepare(self, data: Any, training: bool) -> tuple[Batch, Any, Any]:
        batch, y, sample_weight = super().prepare(data, training)
        return {**batch, "share": self._share(training)}, y, sample_weight

    def call(self, x: Any, training: bool = False) -> Tensor | dict[str, Any]:
        if not (isinstance(x, dict) and "clean" in x):
            return super().call(x, training)
        logits, statistics = _clean_pass(graph(self.classifier), x["clean"], training)
        found = {"clean": logits, "statistics": statistics}
        if "adversarial" in x:
            found["adversarial"] = self.classifier(x["adversarial"], training=False)
        return found

    def images(self, x: Batch) -> Interval:
        """The box whose bounds are trained."""
        return box(x["clean"], ops.maximum(x["share"] * self.epsilon, _LEAST))

    def margins(self, found: Propagated, y: Tensor, share: Tensor) -> Tensor:
        """Lower bounds of the margins (batch, classes), see `certification.margins`."""
        return margins(found, y, self.classifier.output_shape[1])

    def objective(
        self, x: Batch, y: Tensor, y_pred: dict[str, Any], sample_weight: Tensor | None
    ) -> Tensor:
        share, network = x["share"], graph(self.classifier)
        known = y_pred["statistics"]
        statistics = (lambda call: known[str(call.target)]) if known else None
        found = propagate(network, self.images(x), statistics)
        bounds = self.margins(found, integer_labels(y), share)
        y_pred["margins"] = bounds  # for the metric
        weight = 1 - (1 - self.clean_weight) * share
        if not self.falling:
            weight = ops.where(share > 0, self.clean_weight, 1.0)
        clean = self.compiled_loss(x["clean"], y, y_pred["clean"], sample_weight)
        worst = self.compiled_loss(x["clean"], y, -bounds, sample_weight)
        loss = weight * clean + (1 - weight) * worst
        if self.regularization:
            terms = _regularisers(found)
            loss = loss + self.regularization * (1 - share) * self._mean(terms, sample_weight)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        if isinstance(y_pred, dict):
            others = ops.one_hot(integer_labels(y), self.classifier.output_shape[1]) == 0
            least = ops.min(ops.where(others, y_pred["margins"], float("inf")), axis=1)
            self.certified_accuracy.update_state(ops.cast(least > 0, "float32"), sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        names: tuple[str, ...] = (
            "epsilon",
            "clean_weight",
            "falling",
            "warmup_steps",
            "ramp_steps",
        )
        names += ("smooth", "regularization")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("robust_zoo")
class CrownIBP(IntervalBoundTraining):
    """`IntervalBoundTraining` with bounds that are tighter at first (Zhang et al., arXiv:1906.06316).

    Margins are b * crown + (1 - b) * interval, where b falls from 1 to `crown_weight` as epsilon rises: those of one
    backward pass of linear bounds, with the adaptive lower slope. It costs about four times as much while b is above 0.

    Args:
        classifier: see `IntervalBoundTraining`.
        crown_weight: b at the end, in [0, 1]; default 0, so that intervals alone certify the model. The paper takes 1 at
            2/255 on CIFAR-10, where only CROWN-IBP's own bounds do.
        epsilon, clean_weight, falling, warmup_steps, ramp_steps, smooth, regularization, attack, attack_mode, seed: see
            `IntervalBoundTraining`.
    """

    def __init__(
        self, classifier: keras.Model, *, crown_weight: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(classifier, **kwargs)
        self.crown_weight = check_number("crown_weight", crown_weight, least=0, most=1)

    def margins(self, found: Propagated, y: Tensor, share: Tensor) -> Tensor:
        intervals = super().margins(found, y, share)
        weight = 1 - (1 - self.crown_weight) * share
        classes = self.classifier.output_shape[1]

        def mixed() -> Tensor:
            crown = margins(found, y, classes, slope="adaptive")
            return weight * crown + (1 - weight) * intervals

        return mixed() if self.crown_weight else ops.cond(weight > 0, mixed, lambda: intervals)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "crown_weight": self.crown_weight}


@keras.saving.register_keras_serializable("robust_zoo")
class SmallBoxTraining(IntervalBoundTraining):
    """`IntervalBoundTraining` on a small box around an adversarial image (SABR, Mueller et al., arXiv:2210.04871).

    The box is a share of the ball, pixel by pixel, around what the attack made, and moved so that it lies within the
    ball. Bounds of it are no certificate; share 1 is interval bound training, and a share near 0 adversarial training.

    Args:
        classifier: see `IntervalBoundTraining`.
        attack: that finds the middle of the box; its epsilon is that of the ball, which rises as `ramp_steps` says.
        box_share: side of the box over that of the ball, in (0, 1]; the paper's lambda, 0.1 to 0.7.
        clean_weight, falling, warmup_steps, ramp_steps, smooth, regularization, attack_mode, seed: see
            `IntervalBoundTraining`.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        attack: FixedBudgetAttack,
        box_share: float,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("epsilon", None)  # of a configuration
        super().__init__(classifier, attack=attack, epsilon=attack.epsilon, **kwargs)
        if attack.norm != "linf":
            raise ValueError(f"attack must have norm 'linf', got {attack!r}.")
        self.box_share = check_number("box_share", box_share, above=0, most=1)

    def adversarial_part(self, x: Tensor, y: Tensor, training: bool) -> Batch:
        assert self.attack is not None
        epsilon = self.attack.epsilon * self._share(training)
        view, key = self.adversary_view(training), self.keys(x, training)
        x_adv = self.attack(view, x, y, key=key, epsilon=epsilon)
        return {"adversarial": x_adv, "attacked": ops.ones((ops.shape(x)[0],), "bool")}

    def images(self, x: Batch) -> Interval:
        ball = super().images(x)
        radius = self.box_share * ball.radius
        middle = ops.clip(x["adversarial"], ball.lower + radius, ball.upper - radius)
        return Interval(middle - radius, middle + radius)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "box_share": self.box_share}


def _clean_pass(
    network: Graph, x: Tensor, training: bool
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Logits of images, and, in training, the statistics of what each BatchNormalization is given, by its call's target."""
    tensors, statistics = {network.source: x}, {}
    for call in network.calls:
        given = [tensors[number] for number in call.sources]
        layer = call.layer
        if training and isinstance(layer, keras.layers.BatchNormalization):
            # What the layer itself normalises with, over all replicas.
            statistics[str(call.target)] = layer._moments(ops.cast(given[0], "float32"), None)
        tensors[call.target] = call(given, training=training)
    return tensors[network.target], statistics


def _regularisers(found: Propagated) -> Tensor:
    """Both terms (batch,): means over the ReLUs' inputs of how much wider and how one-sided these are than wanted."""
    images = found.intervals[found.source]
    first = _mean_of(images.radius)
    terms = []
    for stage in found.stages:
        if not (isinstance(stage.part, Monotone) and stage.part.slope is not None):
            continue
        bounds = found.intervals[stage.sources[0]]
        wide = ops.relu(_WANTED - first / ops.maximum(_mean_of(bounds.radius), 1e-12))
        active = ops.cast(bounds.lower > 0, "float32")
        dead = ops.cast(bounds.upper < 0, "float32")
        centre = bounds.centre
        share = _balance(_mean_of(centre * active), -_mean_of(centre * dead))
        apart = ops.square(
            centre - ops.reshape(_mean_of(centre), (-1, *[1] * (len(centre.shape) - 1)))
        )
        spread = _balance(_mean_of(apart * active), _mean_of(apart * dead))
        terms.append((wide + ops.relu(_WANTED - share) + ops.relu(_WANTED - spread)) / _WANTED)
    return ops.mean(ops.stack(terms), axis=0) if terms else ops.zeros_like(first)


def _mean_of(values: Tensor) -> Tensor:
    """Of each example, (batch,)."""
    return ops.mean(values, axis=tuple(range(1, len(values.shape))))


def _balance(one: Tensor, other: Tensor) -> Tensor:
    """The smaller over the larger; 1, which asks for nothing, where either is not above 0."""
    fine = ops.logical_and(one > 0, other > 0)
    one, other = (ops.where(fine, each, 1.0) for each in (one, other))
    return ops.minimum(one / other, other / one)
