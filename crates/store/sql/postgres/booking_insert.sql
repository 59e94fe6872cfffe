-- Inserts bookings. A duplicate id violates the primary key.
WITH written AS (
    INSERT INTO bookings ({booking}) SELECT * FROM unnest({booking $1})
    RETURNING 1)
{count of written}
