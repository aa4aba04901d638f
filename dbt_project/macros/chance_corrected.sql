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
