"""What the page on silenced components says in words: how to read it, and what to do where something is missing."""

from markupsafe import Markup

from timecourse.reports import wording
from timecourse.reports.blocks import Prose
from timecourse.reports.partition import Partition, Row


def how_to_read(partition: Partition, rows: list[Row]) -> Prose:
    """What was silenced, how, and beside what; `rows` name the ablated checkpoints."""
    ablated = [partition.label_at(index) for index in sorted({row["checkpoint_index"] for row in rows})]
    return Prose(
        [
            "A role says where information flowed, not that the answer needed it. So all components that hold a role"
            " are silenced at once: what they add is replaced at every position of the prompt. Any damage to a model"
            " costs something; therefore as many others like them are silenced too: random sets with as many"
            " heads in every layer and as many FFNs, which may share some with the role. A role matters to the answers"
            " as far as silencing it costs more.",
            "Which components hold a role is decided by one half of the facts, what silencing them does is measured on"
            " the other half, and the other way round. Effects are in nats: −0.69 halves the probability of an answer."
            f" Silenced at {wording.listing(ablated)}.",
        ],
        "How to read this page",
    )


def nothing_silenced(partition: Partition) -> Prose:
    """What to do where the series has no ablation."""
    return Prose(
        [
            Markup(
                "Nothing of {} has been silenced yet: <code>timecourse ablate</code>, with the settings that it was"
                " extracted with, silences its roles' components at some checkpoints and writes this report anew."
            ).format(partition.series_id)
        ]
    )


def other_tau() -> Prose:
    """Why single components alone were silenced as far as this τ is concerned."""
    return Prose(
        [
            Markup(
                "No role of this τ was silenced: <code>timecourse ablate</code> takes the roles at the first τ of the"
                " settings. Single components are silenced whatever τ is; below is how that goes with attribution at"
                " this τ."
            )
        ]
    )


def thetas_differ(partition: Partition, rows: list[Row]) -> list[Prose]:
    """A caution where the silenced sets were found at another θ than the roles on the other pages."""
    thetas = sorted({row["theta"] for row in rows})
    if all(theta == float(partition.setting["theta"]) for theta in thetas):
        return []
    return [
        Prose(
            [
                Markup(
                    "The silenced roles were found at θ = {}, those on the other pages at θ = {:g}."
                    " <code>timecourse ablate</code> silences those."
                ).format(wording.listing([f"{theta:g}" for theta in thetas]), partition.setting["theta"])
            ],
            "Another θ",
            is_caution=True,
        )
    ]
