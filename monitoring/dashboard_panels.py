"""The kinds of panel that the dashboards are made of, each with one look."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, statetimeline, table
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as parts
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboard_style import GOOD, PRODUCTION, WRONG, Colours, Steps, Texts

Panels = Sequence[cog.Builder[parts.Panel]]
SOURCE = parts.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT, LONG = 8, 12
"""Rows of the grid that a chart takes, and one with many series; the grid is 24 columns wide."""

Kind = TypeVar("Kind", lines.Panel, stat.Panel, bargauge.Panel, heatmap.Panel, statetimeline.Panel, table.Panel)


@dataclass(frozen=True)
class Query:
    """An expression, and what each of its series is called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Words:
    """What a panel is called, and what it tells; `unit` is one of Grafana's."""

    title: str
    says: str
    unit: str


def number(
    words: Words, query: Query, steps: Steps, decimals: int | None = None, texts: Texts | None = None
) -> stat.Panel:
    """One value of the latest moment, coloured by `steps`, or by `texts`: what stands for a value, and its colour."""
    panel = _named(stat.Panel(), words, [query], 4, 4).thresholds(_thresholds(steps)).no_value("none")
    panel = panel.color_mode(shapes.BigValueColorMode.VALUE).reduce_options(_latest())
    panel = panel.graph_mode(shapes.BigValueGraphMode.NONE if texts else shapes.BigValueGraphMode.AREA)
    if texts:
        panel = panel.mappings([_mapping(texts)])
    return panel if decimals is None else panel.decimals(decimals)


def name(words: Words, query: Query) -> stat.Panel:
    """The name of a series rather than its value."""
    panel = _named(stat.Panel(), words, [query], 4, 4).reduce_options(_latest()).no_value("none")
    panel = panel.text_mode(shapes.BigValueTextMode.NAME).graph_mode(shapes.BigValueGraphMode.NONE)
    return panel.color_scheme(_fixed(PRODUCTION))


def series(
    words: Words, queries: Sequence[Query], width: int, colours: Colours | None = None,
    limit: float | None = None, stacked: bool = False, top: float | None = None,
) -> lines.Panel:  # fmt: skip
    """Values over time from 0 up, one line for each series; a dashed red line where `limit` is.

    Series without `colours` of their own are coloured by which side of the limit they end on.
    """
    panel = _named(lines.Panel(), words, queries, width, HEIGHT).legend(_legend())
    panel = panel.min(0).line_width(2).fill_opacity(60 if stacked else 8).show_points(shapes.VisibilityMode.NEVER)
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING)
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL)).line_width(0)
    if top is not None:
        panel = panel.max(top)
    if limit is not None:
        dashed = common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds([(None, GOOD), (limit, WRONG)])).thresholds_style(dashed)
        # A limit that lies above what is seen must be seen as well.
        panel = panel.axis_soft_max(limit * 1.1)
    if limit is not None and colours is None:
        panel = panel.color_scheme(_by_limit())
    for legend, colour in (colours or {}).items():
        panel = panel.override_by_regexp(legend, [parts.DynamicConfigValue("color", _plain(colour))])
    return panel


def ranking(words: Words, query: Query, width: int, steps: Steps) -> bargauge.Panel:
    """The latest value of each series as a bar, the largest first."""
    panel = _named(bargauge.Panel(), words, [query], width, LONG, instant=True).thresholds(_thresholds(steps))
    panel = panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC)
    return panel.min(0).reduce_options(_latest()).show_unfilled(True)


def spread(words: Words, query: Query, width: int) -> heatmap.Panel:
    """How many values lay in each bucket of a histogram, over time."""
    panel = _named(heatmap.Panel(), words, [query], width, HEIGHT, form=PromQueryFormat.HEATMAP)
    colours = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Blues").steps(32).reverse(True)
    axis = heatmap.YAxisConfig().unit(words.unit).axis_placement(shapes.AxisPlacement.LEFT)
    return (
        panel.calculate(False).color(colours).y_axis(axis).cell_values(heatmap.CellValues().unit("short")).cell_gap(1)
    )


def states(words: Words, query: Query, width: int, texts: Texts) -> statetimeline.Panel:
    """What held from when to when: each value has a text and a colour."""
    panel = _named(statetimeline.Panel(), words, [query], width, HEIGHT).mappings([_mapping(texts)])
    panel = panel.show_value(shapes.VisibilityMode.NEVER).merge_values(True).fill_opacity(80).row_height(0.8)
    return panel.legend(common.VizLegendOptions().show_legend(True).placement(shapes.LegendPlacement.BOTTOM))


def rows(words: Words, query: Query, width: int, columns: Sequence[str], value: str) -> table.Panel:
    """One row for each series: its labels, which are named in `columns`, and its value, the largest first."""
    panel = _named(table.Panel(), words, [query], width, HEIGHT, form=PromQueryFormat.TABLE, instant=True)
    order = {name: index for index, name in enumerate([*columns, "Value"])}
    named = {"Value": value, **{name: name.capitalize() for name in columns}}
    return panel.with_transformation(
        parts.DataTransformerConfig(
            id_val="organize", options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": named}
        )
    ).sort_by([common.TableSortByFieldState().display_name(value).desc(True)])


def _named(
    panel: Kind, words: Words, queries: Sequence[Query], width: int, height: int, instant: bool = False,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> Kind:  # fmt: skip
    panel = panel.title(words.title).description(words.says).datasource(SOURCE).unit(words.unit)
    for letter, query in zip("ABCDEF", queries, strict=False):
        asked: prometheus.Dataquery = prometheus.Dataquery().expr(query.expr).ref_id(letter).format(form)
        asked = asked.datasource(SOURCE).legend_format(query.legend)
        panel = panel.with_target(asked.instant() if instant else asked.range())
    return panel.span(width).height(height)


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    found = [parts.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(parts.ThresholdsMode.ABSOLUTE).steps(found)


def _mapping(texts: Texts) -> parts.ValueMap:
    return parts.ValueMap(
        options={value: parts.ValueMappingResult(text=text, color=colour) for value, (text, colour) in texts.items()}
    )


def _latest() -> cog.Builder[shapes.ReduceDataOptions]:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True).placement(shapes.LegendPlacement.BOTTOM)
    return legend.display_mode(shapes.LegendDisplayMode.TABLE).calcs(["lastNotNull", "mean", "max"])


def _fixed(colour: str) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(parts.FieldColorModeId.FIXED).fixed_color(colour)


def _by_limit() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(parts.FieldColorModeId.THRESHOLDS).series_by(parts.FieldColorSeriesByMode.LAST)


def _plain(colour: str) -> dict[str, str]:
    return {"mode": "fixed", "fixedColor": colour}
