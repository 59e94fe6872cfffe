-- Which entries of an event are about which booking, one booking after the other. Sorts, outside of memory.
SELECT booking_id, seq FROM ledger WHERE event_id = $1 AND booking_id IS NOT NULL ORDER BY booking_id, seq
