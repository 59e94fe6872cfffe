-- Inserts the counters of events. A duplicate id violates the primary key.
WITH written AS (
    INSERT INTO events ({event}) SELECT * FROM unnest({event $1})
    RETURNING 1)
{count of written}
