"""The RDS Data API (botocore: rds-data): SQL over HTTPS against an Aurora cluster, without a driver or a way into its VPC.

The runbooks use it because an Automation step has neither. Single statements only; transactions are not implemented.
https://docs.aws.amazon.com/rdsdataservice/latest/APIReference/API_ExecuteStatement.html
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import re
from typing import TYPE_CHECKING, Any, cast

import psycopg

from lab.aws.service import AwsError
from lab.aws.support import Arn

if TYPE_CHECKING:
    from lab.aws.service import Context, World

STATEMENT_TIMEOUT_S = 45
MOST_RESULT_BYTES = 1 << 20
_PARAMETER = re.compile(r"(?<!:):([A-Za-z_][A-Za-z0-9_]*)")


class Service:
    """The service. Which server belongs to a cluster's ARN is what RDS says of its endpoint."""

    def __init__(self, world: World) -> None:
        self._world = world

    def execute_statement(self, _ctx: Context, params: dict[str, Any]) -> dict[str, Any]:
        """Run one statement. Raises `AwsError` as the API would."""
        if params.get("transactionId"):
            raise AwsError("UnsupportedOperation", "Transactions of the Data API are not implemented here.", 501)
        port, database = self._server(params["resourceArn"])
        user = self._user(params["secretArn"])
        statement = _PARAMETER.sub(r"%(\1)s", params["sql"].replace("%", "%%"))
        values = {item["name"]: _value(item["value"]) for item in params.get("parameters") or ()}
        try:
            with psycopg.connect(
                host="127.0.0.1",
                port=port,
                user=user,
                dbname=params.get("database") or database,
                connect_timeout=5,
                options=f"-c statement_timeout={STATEMENT_TIMEOUT_S * 1000}",
                autocommit=True,
            ) as connection:
                cursor = connection.execute(statement, values)
                if cursor.description is None:
                    return {"numberOfRecordsUpdated": cursor.rowcount, "generatedFields": []}
                names = [column.name for column in cursor.description]
                rows = cursor.fetchall()
        except psycopg.errors.QueryCanceled as error:
            raise AwsError("StatementTimeoutException", f"The statement took longer than {STATEMENT_TIMEOUT_S} seconds.") from error
        except psycopg.OperationalError as error:
            raise AwsError("DatabaseUnavailableException", f"The database does not answer: {error}", 504) from error
        except psycopg.Error as error:
            raise AwsError("DatabaseErrorException", f"ERROR: {error}; SQLState: {error.sqlstate}") from error
        return _result(names, rows, params)

    def _user(self, secret_arn: str) -> str:
        """The user name that a secret holds."""
        arn = Arn.parse(secret_arn)
        try:
            if arn is None:
                raise AwsError("ResourceNotFoundException", "it is no ARN")
            secret = self._world.call(arn.region, "secretsmanager", "get_secret_value", SecretId=secret_arn)["SecretString"]
            return str(json.loads(secret)["username"])
        except (AwsError, ValueError, KeyError) as error:
            raise AwsError("BadRequestException", f"The secret {secret_arn} cannot be used: {error}") from error

    def _server(self, resource_arn: str) -> tuple[int, str]:
        """The port and default database of a cluster."""
        arn = Arn.parse(resource_arn)
        if arn is None or arn.service != "rds" or not arn.resource.startswith("cluster:"):
            raise AwsError("BadRequestException", f"Invalid resource ARN: {resource_arn}")
        try:
            answer = self._world.call(
                arn.region, "rds", "describe_db_clusters", DBClusterIdentifier=cast("Any", arn.resource.removeprefix("cluster:"))
            )
        except AwsError as error:
            raise AwsError("DatabaseNotFoundException", f"Database cluster is not found: {resource_arn} ({error.message})", 404) from error
        cluster = answer["DBClusters"][0]
        return int(cluster["Port"]), str(cluster.get("DatabaseName") or "postgres")


def _result(names: list[str], rows: list[tuple[Any, ...]], params: dict[str, Any]) -> dict[str, Any]:
    if params.get("formatRecordsAs") == "JSON":
        text = json.dumps([dict(zip(names, map(_plain, row), strict=True)) for row in rows])
        result: dict[str, Any] = {"formattedRecords": text, "numberOfRecordsUpdated": 0}
    else:
        records = [[_field(value) for value in row] for row in rows]
        text = json.dumps(records)
        result = {"records": records, "numberOfRecordsUpdated": 0}
        if params.get("includeResultMetadata"):
            result["columnMetadata"] = [{"name": name, "label": name} for name in names]
    if len(text.encode()) > MOST_RESULT_BYTES:
        raise AwsError("UnsupportedResultException", "Database returned more than the allowed response size limit")
    return result


def _value(value: dict[str, Any]) -> Any:
    """A parameter's value; isNull, longValue, stringValue, …"""
    return None if value.get("isNull") else next(iter(value.values()))


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    if value is None or isinstance(value, (bool, int, float, str, dict, list)):
        return value
    return value.isoformat(sep=" ") if isinstance(value, dt.datetime) else str(value)


def _field(value: Any) -> dict[str, Any]:
    plain = _plain(value)
    if plain is None:
        return {"isNull": True}
    if isinstance(plain, bool):
        return {"booleanValue": plain}
    if isinstance(plain, int):
        return {"longValue": plain}
    if isinstance(plain, float):
        return {"doubleValue": plain}
    return {"stringValue": plain if isinstance(plain, str) else json.dumps(plain)}
