-- The tickets that users hold: the users given, and the owners of the bookings given. Served by the primary
-- keys.
SELECT u.event_id, u.user_id, u.tickets
FROM (SELECT * FROM unnest($1::uuid[], $2::text[]) AS named (event_id, user_id)
      UNION SELECT event_id, user_id FROM bookings WHERE id = ANY ($3::uuid[])) n
JOIN user_limits u ON u.event_id = n.event_id AND u.user_id = n.user_id
