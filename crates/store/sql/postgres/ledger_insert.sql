-- Inserts ledger entries. A duplicate number violates the primary key.
WITH written AS (
    INSERT INTO ledger ({ledger}) SELECT * FROM unnest({ledger $1})
    RETURNING 1)
{count of written}
