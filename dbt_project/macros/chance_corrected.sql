{#-
    An overlap on a scale on which chance is 0 and the largest overlap that sets of these sizes can have is 1. Null where
    those two are the same. Sets keep their observed sizes in intervals.
-#}
{% macro chance_corrected(iou, chance, largest) -%}
    case
        when round({{ largest }} - {{ chance }}, 9) > 0
            then round(({{ iou }} - {{ chance }}) / ({{ largest }} - {{ chance }}), 9)
    end
{%- endmacro %}

{#- Of the strata of two sets, those in which both have members: in the others they cannot meet. Null without any. -#}
{% macro meeting_strata(strata) -%}
    nullif(
        list_filter({{ strata }}, lambda stratum: stratum.active_count > 0 and stratum.drawn_count > 0), []
    )
{%- endmacro %}

{#-
    The mean overlap of two sets, from the probabilities of how many members they share, the lowest number that has one,
    and the sum of their sizes.
-#}
{% macro mean_overlap(probabilities, lowest_count, size_sum) -%}
    round(list_sum(list_transform(
        {{ probabilities }},
        lambda probability, place:
        probability * ({{ lowest_count }} + place - 1) / ({{ size_sum }} - {{ lowest_count }} - place + 1)
    )), 9)
{%- endmacro %}
