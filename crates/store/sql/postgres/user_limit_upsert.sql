-- Writes the new counts of users, with the limits that the database enforces.
WITH written AS (
    INSERT INTO user_limits ({user_limit}) SELECT * FROM unnest({user_limit $1})
    ON CONFLICT (event_id, user_id) DO UPDATE SET tickets = excluded.tickets,
           max_tickets = excluded.max_tickets
    RETURNING 1)
{count of written}
