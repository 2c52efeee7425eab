"""The queries of the Log Analytics feed: one page of one table, in the order (ingestion time, hash of the row).

Times cross as text with seven digits, because the client's datetimes keep six and the access id is made of all seven.
"""

from typing import Any, Final, NamedTuple

from cryptocore.clock import rfc3339

AT: Final = "keytrail_at"
ROW: Final = "keytrail_row"
"""Columns that the query adds; they never leave the feed."""
_VAULT: Final = r"(?i)/providers/microsoft\.keyvault/(locations/[^/]+/)?(deleted)?(vaults|managedhsms)/"
FILTERS: Final = {
    "AZKVAuditLogs": "",
    "AzureDiagnostics": '| where ResourceProvider =~ "MICROSOFT.KEYVAULT" and Category =~ "AuditEvent"\n',
    "AzureActivity": (
        '| where CategoryValue =~ "Administrative"\n'
        '| where OperationNameValue startswith "Microsoft.KeyVault/"'
        ' or OperationNameValue startswith "Microsoft.Insights/diagnosticSettings/"'
        ' or OperationNameValue startswith "Microsoft.Authorization/roleAssignments/"\n'
        f'| where _ResourceId matches regex @"{_VAULT}"\n'
    ),
}


class After(NamedTuple):
    """The last row of the page before."""

    at: str
    row: str


def page(table: str, start_us: int, end_us: int, *, after: After | None, rows: int) -> str:
    """Write the query for the rows of `table` that were ingested in [start, end), after a row, `rows` at most."""
    beyond = ""
    if after is not None:
        beyond = f'| where {AT} > "{after.at}" or ({AT} == "{after.at}" and {ROW} > "{after.row}")\n'
    ingested = "ingestion_time()"
    return (
        f"{table}\n"
        f"| where {ingested} >= datetime({rfc3339(start_us)}) and {ingested} < datetime({rfc3339(end_us)})\n"
        f"{FILTERS[table]}"
        f"| extend {AT} = {_seven_digits(ingested)}, {ROW} = hash_sha256(tostring(pack_all(true)))\n"
        f"{beyond}"
        f"| order by {AT} asc, {ROW} asc\n"
        f"| take {rows}\n"
        f"| extend TimeGenerated = {_seven_digits('TimeGenerated')}"
    )


def row_of(columns: list[str], types: list[str], values: list[Any]) -> dict[str, Any]:
    """Return a row as it would be exported: the client makes "None" of a guid or timespan that is null."""
    return {
        name: None if kind in {"guid", "timespan"} and value == "None" else value
        for name, kind, value in zip(columns, types, values, strict=True)
    }


def _seven_digits(expression: str) -> str:
    """Format a time in KQL; its own formatting knows no letter T."""
    day = f"format_datetime({expression}, 'yyyy-MM-dd')"
    return f"strcat({day}, 'T', format_datetime({expression}, 'HH:mm:ss.fffffff'), 'Z')"
