"""Tables from finished runs."""

from infty.base.table import Table
from infty.report.load.results import ResultSet
from infty.report.tables.beside_the_paper import published_tables
from infty.report.tables.by_distance import distance_tables
from infty.report.tables.cost import cost_table
from infty.report.tables.knock_outs import knock_out_tables
from infty.report.tables.language_modelling import perplexity_table
from infty.report.tables.memory_influence import fit_tables, gaze_tables, reach_tables
from infty.report.tables.pairs import column_tables, pair_tables
from infty.report.tables.sorting import accuracy_table, difference_tables
from infty.report.tables.tuning import tuned_tables


def all_tables(results: ResultSet) -> list[Table]:
    """Quality, the differences between rows, what is in print beside it, and the cost."""
    if not results.cases:  # runs with other settings alone
        return []
    if results.is_text:
        quality = [perplexity_table(results, case) for case in results.cases]
    else:
        quality = [accuracy_table(results), *difference_tables(results)]
    memories = [*knock_out_tables(results), *reach_tables(results), *gaze_tables(results), *fit_tables(results)]
    orders = [*pair_tables(results), *column_tables(results), *distance_tables(results), *published_tables(results)]
    return [*quality, *orders, *memories, cost_table(results), *tuned_tables(results)]


__all__ = ["all_tables"]
