-- Writes the new counts of users, with the limits that the database enforces.
WITH written AS (
    INSERT INTO user_limits (event_id, user_id, tickets, max_tickets)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
    ON CONFLICT (event_id, user_id) DO UPDATE SET tickets = excluded.tickets,
           max_tickets = excluded.max_tickets
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
