-- The total numbers of rows, to find rows that belong to no event.
SELECT (SELECT count(*) FROM bookings), (SELECT count(*) FROM ledger), (SELECT count(*) FROM refunds)
