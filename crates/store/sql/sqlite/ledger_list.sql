-- The ledger of an event after a given entry, oldest first. Served by the primary key.
SELECT event_id, seq, type, booking_id, refund_id, lines, quantity, from_status, to_status, available_after,
       previous_seq, actor, request_id, at, trace
FROM ledger WHERE event_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3
