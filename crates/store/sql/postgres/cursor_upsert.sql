-- Saves the cursors of a consumer, in the order of the events, so that two savers cannot deadlock.
WITH written AS (
    INSERT INTO cursors ({cursor})
    SELECT * FROM unnest({cursor $1}) AS n ({cursor}) ORDER BY n.event_id
    ON CONFLICT (consumer, event_id) DO UPDATE SET destination = excluded.destination, seq = excluded.seq
    RETURNING 1)
{count of written}
