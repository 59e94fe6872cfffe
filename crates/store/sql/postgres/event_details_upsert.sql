-- Inserts or updates the descriptions of events. Guarded by the version, which only increases.
WITH written AS (
    INSERT INTO event_details AS d ({event_details}) SELECT * FROM unnest({event_details $1})
    ON CONFLICT (event_id) DO UPDATE SET {event_description = excluded}
    WHERE d.version < excluded.version
    RETURNING 1)
{count of written}
