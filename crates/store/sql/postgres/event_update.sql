-- Updates the counters of events. Guarded by the ledger numbers that were loaded: no other transaction has
-- written since.
WITH written AS (
    UPDATE events e SET {event_counters = n}
    FROM unnest({event_update $1}) AS n ({event_update})
    WHERE e.id = n.id AND {guard sequence-check: e.seq = n.loaded_seq}
    RETURNING 1)
{count of written}
