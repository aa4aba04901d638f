"""Every threshold of the gates, with the reason beside it. Violating a limit fails the gate unless it says "warn"."""

COMPLETENESS_ERROR = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}
"""Largest ‖Σp − stream‖₁ / ‖stream‖₁, by dtype (method: section 2): beyond it the parts are not those of this model."""

LENS_ERROR = COMPLETENESS_ERROR
"""Largest relative difference between the lens after the last block and the model's own logits, by dtype: the same
arithmetic once more, so the same rounding."""

DEGENERATE_SHARE = 0.5
"""Where more than half of all sums end a route, what is left describes τ and not the model."""

DEGENERATE_SHARE_NOTABLE = 0.1
"""Warn: a tenth of the routes ends early. A trained model at a sensible τ stays far below."""

ROUNDING = 1e-5
"""Slack on bounds that hold exactly in real numbers: shares of 1 are float32 sums of up to some thousand terms."""

SPLIT_TOLERANCE = 1e-4
"""A head's score against its four parts by key, relative to the score where that is above 1: the same float32 terms,
added in another order."""

SUM_TOLERANCE = 1e-3
"""Shares of one sum against 1: up to (keys × heads) float32 terms, added per component and then once more here."""

LOG_PROB_TOLERANCE = 1e-3
"""Nats. Log-softmax in float32 over a vocabulary of up to 300,000."""

TIE_TOLERANCE = 0.02
"""Nats. Two logits that are equal after rounding to half precision leave each at most half of the probability."""

ABLATION_ROUNDING = 0.1
"""Nats. The intact run is another run of the same model, whose half-precision logits may round otherwise."""

ACCURACY_FALL = 0.2
"""Warn. Accuracy over all facts wobbles by a few points between neighbours (n = 320: ± 0.05); a fall by a fifth is a
loss spike, a wrong file or a wrong tokenizer."""

ACCURACY_RISE = 0.6
"""Warn. Early in training accuracy may well double from one checkpoint to the next, but not appear from nowhere."""

TURNOVER_CHANGE = 0.5
"""Warn. Turnover follows the distance between checkpoints and drifts slowly; the tiny model's moves by up to 0.35
from one transition to the next while it starts to learn. A jump by half says that two neighbours are no neighbours."""

TURNOVER_COMPONENTS = 10
"""Turnover of fewer components is not compared: each of them would move it by more than 0.1."""

FAILING_ROWS = 20
"""How many rows that break a rule are kept for the report."""
