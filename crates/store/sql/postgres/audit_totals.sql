-- How many rows there are in all, to find those that no event leads to.
SELECT (SELECT count(*) FROM bookings), (SELECT count(*) FROM ledger), (SELECT count(*) FROM refunds)
