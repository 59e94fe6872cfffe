-- The numbers of an event's entries, grouped by booking. Sorts on disk.
SELECT booking_id, seq FROM ledger WHERE event_id = ?1 AND booking_id IS NOT NULL ORDER BY booking_id, seq
