"""Rules that a row must keep, as one SELECT over a query's rows: typed columns, the rule that a row breaks, and
the row as it came when it breaks one.

The first rule that fails names the reject. Rows pass through once; only ids of earlier tables are joined. A second
row with an id already seen is found by the writer, since rows come sorted by id.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lang1.ehr.queries import OWN_FLAG, OWN_RULE, relation_name
from lang1.ehr.schema import CATEGORIES, CATEGORY, FEATURES, TABLES
from lang1.errors import InputError

EXCLUDED = "excluded patient"
RULE, RAW = "rule", "raw"
EARLIEST, LATEST = "1800-01-01", "2300-01-01"
"""a date outside is impossible; wide enough for MIMIC, which shifts dates into 2100-2210 and births before 1900"""

IDS: dict[str, str | None] = {
    "patients": "patient_id",
    "encounters": "encounter_id",
    "notes": "note_id",
    "diagnoses": None,
    "claims": "claim_id",
    **dict.fromkeys(FEATURES, "encounter_id"),
}
"""the column that names a row; diagnoses have none"""


@dataclass(frozen=True)
class Checked:
    """What a table becomes: its Arrow schema, the types as DuckDB sees them, and the SELECT that checks it."""

    table: str
    schema: pa.Schema
    sql: str
    order: str
    """ORDER BY of `sql`, whose first column is `sort_column`"""
    id_column: str | None

    @property
    def sort_column(self) -> str:
        """What rows come sorted by first: the id, or for diagnoses, which have none, the patient."""
        return self.id_column or self.schema.names[0]


def quoted(name: str) -> str:
    """A DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


def features_schema(where: str, types: dict[str, str]) -> pa.Schema:
    """Schema of a FEATURES table: encounter_id, then every other column as number, boolean or category."""
    fields = [pa.field("encounter_id", pa.string(), nullable=False)]
    for column, kind in types.items():
        if column == "encounter_id":
            continue
        if kind in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"}:
            fields.append(pa.field(column, pa.int64()))
        elif kind in {"FLOAT", "DOUBLE"} or kind.startswith("DECIMAL"):
            fields.append(pa.field(column, pa.float64()))
        elif kind == "BOOLEAN":
            fields.append(pa.field(column, pa.bool_()))
        elif kind == "VARCHAR" or kind.startswith("ENUM"):
            fields.append(pa.field(column, CATEGORY))
        else:
            raise InputError(f"{where}: column {column} is {kind}; a feature is a number, a boolean or text")
    return pa.schema(fields)


def checked(table: str, types: dict[str, str], where: str, ordered_by_all: bool) -> Checked:
    """The checking SELECT of a table, and the order in which the same rows give the same bytes.

    `ordered_by_all`: ids are not unique, so every column decides the order; costs a wider sort.
    """
    schema = TABLES[table] if table in TABLES else features_schema(where, types)
    names = [f.name for f in schema]
    own = [column for column in (OWN_RULE, OWN_FLAG) if table in TABLES and column in types]
    typed = ",\n    ".join(
        f"{_typed(f)} AS {quoted(f.name)}, i.{quoted(f.name)} AS {quoted('raw ' + f.name)}" for f in schema
    ) + "".join(f",\n    nullif(CAST(i.{column} AS VARCHAR), '') AS {column}" for column in own)
    raw = ", ".join(f"{quoted(name)} := CAST(t.{quoted('raw ' + name)} AS VARCHAR)" for name in names)
    cases = [f"WHEN {test} THEN {literal(rule)}" for rule, test in _rules(table, schema)]
    if OWN_RULE in own:
        # after the exclusion, before all others: the source's own word says most about why
        cases.insert(1, f"WHEN t.{OWN_RULE} IS NOT NULL THEN t.{OWN_RULE}")
    rules = "\n        ".join(cases)
    columns = ", ".join(quoted(name) for name in names)
    sql = (
        f"WITH typed AS (SELECT\n    {typed}\n    FROM {relation_name(table)} AS i),\n"
        f"ruled AS (SELECT t.*, CASE\n        {rules}\n    END AS {RULE}\n    FROM typed AS t {_joins(schema)})\n"
        f"SELECT {columns}, {OWN_FLAG + ', ' if OWN_FLAG in own else ''}{RULE}, "
        f"CASE WHEN t.{RULE} <> {literal(EXCLUDED)} THEN struct_pack({raw}) END AS {RAW}\n"
        "FROM ruled AS t"
    )
    return Checked(table, schema, sql, _order(table, schema, ordered_by_all), IDS[table])


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def sql_type(kind: pa.DataType) -> str:
    """The DuckDB type that a canonical column is read as."""
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    if pa.types.is_date(kind):
        return "DATE"
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_floating(kind):
        return "DOUBLE"
    if pa.types.is_integer(kind):
        return "INTEGER" if kind.bit_width == 32 else "BIGINT"
    return "VARCHAR"


def _typed(field: pa.Field) -> str:
    value = f"TRY_CAST(i.{quoted(field.name)} AS {sql_type(field.type)})"
    # an empty id or category is a missing one; an empty note is what the source wrote
    return value if sql_type(field.type) != "VARCHAR" or field.name == "text" else f"nullif({value}, '')"


def rule_names(table: str) -> list[str]:
    """The rules of a canonical table by name; another name among its rejects is the SQL's own."""
    if table not in TABLES:
        return []
    return [*(rule for rule, _ in _rules(table, TABLES[table])), f"duplicate {IDS[table]}"]


def _rules(table: str, schema: pa.Schema) -> list[tuple[str, str]]:
    names = set(schema.names)
    rules: list[tuple[str, str]] = []
    excluded = [
        f"{alias}.{column} IS NOT NULL"
        for alias, column in (("xp", "patient_id"), ("xe", "encounter_id"))
        if column in names
    ]
    rules.append((EXCLUDED, " OR ".join(excluded)))
    for f in schema:
        if sql_type(f.type) != "VARCHAR":
            rules.append(
                (f"unreadable {f.name}", f"t.{quoted(f.name)} IS NULL AND t.{quoted('raw ' + f.name)} IS NOT NULL")
            )
        if sql_type(f.type) in {"DATE", "TIMESTAMP"}:
            column = f"t.{quoted(f.name)}"
            rules.append(
                (f"impossible date in {f.name}", f"{column} < DATE '{EARLIEST}' OR {column} >= DATE '{LATEST}'")
            )
    rules += [(f"missing {f.name}", f"t.{quoted(f.name)} IS NULL") for f in schema if not f.nullable]
    if table != "patients" and "patient_id" in names:
        rules.append(("no such patient", "p.patient_id IS NULL"))
    if table != "encounters" and "encounter_id" in names:
        rules.append(("no such encounter", "t.encounter_id IS NOT NULL AND e.encounter_id IS NULL"))
        if "patient_id" in names:
            rules.append(("encounter of another patient", "e.patient_id <> t.patient_id"))
    return rules + _RULES_OF_TABLE.get(table, [])


_RULES_OF_TABLE: dict[str, list[tuple[str, str]]] = {
    "patients": [("death before birth", "t.death_date < t.birth_date")],
    "encounters": [
        ("discharge before admission", "t.discharge_time < t.admit_time"),
        ("admission before birth", "CAST(t.admit_time AS DATE) < p.birth_date"),
        ("impossible length of stay", "t.length_of_stay_days < 0"),
        ("impossible age", "t.age_at_admission < 0 OR t.age_at_admission > 130"),
    ],
    "notes": [("unknown category", f"t.category NOT IN ({', '.join(literal(c) for c in CATEGORIES)})")],
}


def _joins(schema: pa.Schema) -> str:
    names = set(schema.names)
    joins = ""
    if "patient_id" in names:
        joins += "LEFT JOIN excluded_patients AS xp ON xp.patient_id = t.patient_id\n"
        joins += "    LEFT JOIN kept_patients AS p ON p.patient_id = t.patient_id\n"
    if "encounter_id" in names:
        joins += "    LEFT JOIN excluded_encounters AS xe ON xe.encounter_id = t.encounter_id\n"
        joins += "    LEFT JOIN kept_encounters AS e ON e.encounter_id = t.encounter_id\n"
    return joins


def _order(table: str, schema: pa.Schema, ordered_by_all: bool) -> str:
    key = IDS[table]
    first = [quoted(key)] if key else []
    if key and not ordered_by_all:
        return f"{first[0]} NULLS LAST"
    # long texts would make the sort's keys as wide as the notes: a digest tells two rows with one id apart as well
    rest = [f"md5({quoted(f.name)})" if f.name == "text" else quoted(f.name) for f in schema if f.name != key]
    return ", ".join(f"{column} NULLS LAST" for column in (*first, *rest, RULE, f"md5(CAST({RAW} AS VARCHAR))"))
