-- Updates the counters of ticket types. Served by the primary key.
WITH written AS (
    UPDATE ticket_types t SET {ticket_type_counters = n}
    FROM unnest({ticket_type_update $1}) AS n ({ticket_type_update})
    WHERE t.event_id = n.event_id AND t.place = n.place
    RETURNING 1)
{count of written}
