-- Inserts or updates ticket types, descriptions and counters. Guarded by their ids, which never change.
WITH written AS (
    INSERT INTO ticket_types AS t ({ticket_type}) SELECT * FROM unnest({ticket_type $1})
    ON CONFLICT (event_id, place) DO UPDATE SET {ticket_type_content = excluded}
    WHERE t.id = excluded.id
    RETURNING 1)
{count of written}
