"""Tables from finished runs."""

from collections.abc import Callable

from infty.base.table import Table
from infty.report.load.results import ResultSet
from infty.report.tables.beside_the_paper import compare_with_print
from infty.report.tables.differences import compare_by_distance, compare_knock_outs, compare_neighbours
from infty.report.tables.memory_influence import describe_memories
from infty.report.tables.scores import list_accuracies, list_text_figures
from infty.report.tables.training import list_costs, list_tunings

MAKERS: tuple[Callable[[ResultSet], list[Table]], ...] = (
    list_accuracies,
    list_text_figures,
    compare_neighbours,
    compare_by_distance,
    compare_with_print,
    compare_knock_outs,
    describe_memories,
    list_costs,
    list_tunings,
)


def make_tables(results: ResultSet) -> list[Table]:
    """Make the tables that have rows; none of runs with other settings alone."""
    return [table for make in MAKERS for table in make(results) if table.rows] if results.cases else []
