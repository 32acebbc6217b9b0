"""Parquet tables as records."""

from __future__ import annotations

from memfactory.core.errors import BadInput
from memfactory.data import contents
from memfactory.data.files import Records
from memfactory.data.parsing import Record

_ROWS_AT_ONCE = 256
_MOST_ROWS = 100_000_000


class TableRecords(Records):
    """A Parquet table, kept in Arrow's compact form; a row becomes Python values when asked for."""

    def __init__(self, path: str) -> None:
        """Raises `BadInput` for a broken table, and for one that unpacks to more than the limits of `contents`."""
        super().__init__(path)
        import pyarrow
        import pyarrow.parquet

        file = contents.existing(path)
        limit = max(contents.ALWAYS_UNPACKED, contents.MOST_TIMES * file.stat().st_size)
        batches, size = [], 0
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                if table.metadata.num_rows > _MOST_ROWS:
                    raise BadInput(
                        f"{path}: {table.metadata.num_rows} rows; at most {_MOST_ROWS} can be read"
                    )
                for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE):
                    batches.append(batch)
                    size += batch.nbytes
                    if size > limit:
                        raise BadInput(
                            f"{path}: unpacks to more than {limit >> 20} MiB; write it as JSON Lines"
                        )
                self._table = pyarrow.Table.from_batches(batches, table.schema_arrow)
        except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{path}: not a readable Parquet file ({_first_line(error)})") from None

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Record:
        """Record `index`. Raises `BadInput` naming the columns whose value there is no text in UTF-8, say."""
        import pyarrow

        row = {}
        for name, column in zip(self._table.column_names, self._table.columns, strict=True):
            try:
                row[name] = column[index].as_py()
            except UnicodeDecodeError as error:
                raise BadInput(
                    f"{self.where(index)}: column '{name}' is not UTF-8 text (byte {error.start})"
                ) from None
            except (pyarrow.ArrowException, ValueError, OverflowError, TypeError) as error:
                raise BadInput(
                    f"{self.where(index)}: column '{name}' cannot be read ({_first_line(error)})"
                ) from None
        return row


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
